"""The structure of the code, held by a test: what imports what, how large things are, and what is not done here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "app"

ROWS: dict[str, int] = {
    "core": 0,
    **dict.fromkeys(["config", "store", "telemetry", "wire"], 1),
    **dict.fromkeys(
        ["upstreams", "routing", "access", "spend", "sessions", "recall", "flags", "simulator"],
        2,
    ),
    "learning": 3,
    "gateway": 4,
    "lab": 5,
    "api": 6,
    "assembly": 7,
    "main": 8,
    "cli": 9,
}
FILE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 8
MAIN_PATH_LINES = 700
MAIN_PATH = [
    "api/chat.py",
    "api/reply.py",
    "gateway/gateway.py",
    "gateway/attempts.py",
    "upstreams/openai.py",
    "gateway/relay.py",
    "gateway/settle.py",
]
DRAINS = re.compile(r"(utils?|helpers?|common|managers?|misc)")
SOURCES = sorted(APP.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def package(path: Path) -> str:
    return path.relative_to(APP).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def every_source() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", SOURCES, ids=name)


@every_source()
def test_imports_point_down(path: Path) -> None:
    """A package that imports upwards or sideways cannot be understood, tested or replaced alone."""
    own = package(path)
    if own == "__init__":
        return
    assert own in ROWS, f"{name(path)}: {own} has no row; say in ROWS and in docs/architecture.md where it belongs"
    for module, line in imports(path):
        if not module.startswith("app."):
            continue
        other = module.split(".")[1]
        assert other == own or ROWS[other] < ROWS[own], f"{name(path)}:{line} imports {module}, which is not below it"


@every_source()
def test_imports_stand_at_the_top(path: Path) -> None:
    """An import inside a function hides a dependency; only `lab` may put off heavy optional ones."""
    if package(path) == "lab":
        return
    for function in functions(path):
        for node in ast.walk(function):
            assert not isinstance(node, (ast.Import, ast.ImportFrom)), f"{name(path)}:{node.lineno}"


@every_source()
def test_sizes(path: Path) -> None:
    """Size is a budget: what grows past it is split by direction or moved into data."""
    assert len(path.read_text().splitlines()) <= FILE_LINES, f"{name(path)} is longer than {FILE_LINES} lines"
    for function in functions(path):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        assert length <= FUNCTION_LINES, f"{name(path)}:{function.lineno} {function.name} has {length} lines"
        arguments = function.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        count -= bool(arguments.args and arguments.args[0].arg in ("self", "cls"))
        assert count <= PARAMETERS, f"{name(path)}:{function.lineno} {function.name} has {count} parameters"


@every_source()
def test_every_source_has_its_test(path: Path) -> None:
    """Whoever changes a file finds its tests by its name."""
    if path.name == "__init__.py":
        return
    inside = path.relative_to(APP)
    mirror = ROOT / "tests" / inside.parent / f"test_{inside.name}"
    assert mirror.exists(), f"{name(path)} has no {mirror.relative_to(ROOT)}"


@every_source()
def test_names_and_openings(path: Path) -> None:
    """No module is a drain, and each says in its first paragraph what it is for."""
    assert not DRAINS.fullmatch(path.stem), f"{name(path)}: the name says nothing"
    assert ast.get_docstring(tree(path)), f"{name(path)} does not say what it is for"


@every_source()
def test_bans(path: Path) -> None:
    """No globals, no tasks without an owner, no print, no middleware that breaks streams, no silent catch-all."""
    lines = path.read_text().splitlines()
    for node in ast.walk(tree(path)):
        where = f"{name(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Global):
            raise AssertionError(f"{where}: global")
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "print", f"{where}: print"
            if name(path) != "app/core/tasks.py":
                assert not called.endswith(("create_task", "ensure_future")), f"{where}: a task without an owner"
            if name(path) != "app/core/clock.py":
                assert called != "time.time", f"{where}: time.time outside the clock"
        if isinstance(node, (ast.Name, ast.Attribute)):
            assert getattr(node, "id", getattr(node, "attr", "")) != "BaseHTTPMiddleware", where
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            if caught in ("", "Exception", "BaseException"):
                assert "# " in lines[node.lineno - 1], f"{where}: a broad except without its reason beside it"


def test_the_main_path_reads_in_one_sitting() -> None:
    """A newcomer reads seven files to know what happens to a request."""
    lines = {file: len((APP / file).read_text().splitlines()) for file in MAIN_PATH}
    assert sum(lines.values()) <= MAIN_PATH_LINES, lines


def test_no_test_stands_without_its_source() -> None:
    """A test file that mirrors nothing tests something that is gone."""
    free = {"layout", "flows", "chaos", "fuzz", "contracts", "deploy", "docs"}
    for path in (ROOT / "tests").rglob("test_*.py"):
        inside = path.relative_to(ROOT / "tests")
        if inside.parts[0] in free or inside.parts[0] == "bench":
            continue
        source = APP / inside.parent / inside.name.removeprefix("test_")
        assert source.exists(), f"tests/{inside} mirrors no {source.relative_to(ROOT)}"
