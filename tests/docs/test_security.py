"""A line of the threat model without its test is a hope."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| threat |")]
NAMED = re.compile(r"\| `(tests/[\w/]+\.py)::(test_\w+)` \|$")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_each_line_names_a_test_that_exists(row: str) -> None:
    found = NAMED.search(row)
    assert found, "names no test"
    tree = ast.parse((ROOT / found[1]).read_text())
    functions = {
        node.name: node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert found[2] in functions, f"{found[1]} has no {found[2]}"
    marks = [ast.unparse(mark) for mark in functions[found[2]].decorator_list]
    assert not any("skip" in mark or "xfail" in mark for mark in marks), "and that test is run"


def test_every_part_of_the_model_is_there() -> None:
    headings = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert headings == ["Who gets in", "Where requests go", "Too much", "What leaks", "What it is made of"]
    assert len(ROWS) >= 40
