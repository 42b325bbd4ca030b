"""Rows are read as they are labelled, and none that may not ship gets into what ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lab.rows import DataUnusable, RoutingRow, TaskRow, TierRow, read_rows, shippable
from tests.lab.world import routing, task, tier, write


def test_a_folder_is_read_whole(data: Path) -> None:
    """Rows of other questions and other files in the folder are passed over, gzip or not."""
    rows = read_rows([data])
    assert (len(rows.routing), len(rows.tier), len(rows.task)) == (260, 160, 108)
    assert len(rows) == 528


def test_columns_become_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [routing(1, "mmlu_pro")[0], tier(1)[0], task()[0]])
    rows = read_rows([path])
    assert rows.routing[0].hard in (0.25, 0.75)
    assert rows.routing[0].source == "mmlu_pro"
    assert rows.tier[0].tier in (0, 2)
    assert rows.task[0].task == "code"


@pytest.mark.parametrize(
    "damage",
    [
        {"weak": "1"},
        {"strong": 2},
        {"prompt": 7},
        {"id": None},
        {"suite": []},
        {"solved": 3, "models": 0},
        {"solved": "x", "models": 2},
        {"solved": 3},
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, damage: dict[str, Any]) -> None:
    """A mislabelled row must stop training with its line, not teach nonsense."""
    path = write(tmp_path / "r.jsonl", [routing(1)[0], {**routing(1)[0], **damage}])
    with pytest.raises(DataUnusable, match="line 2"):
        read_rows([path])


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    """Who brings data of their own sees what it lacks, and no name of an exception."""
    with pytest.raises(DataUnusable, match=r"line 1: has no 'id'$"):
        read_rows([write(tmp_path / "r.jsonl", [{"prompt": "p", "tier": "simple"}])])


@pytest.mark.parametrize("row", [{**tier(1)[0], "tier": "odd"}, {**task()[0], "task": "sing"}, {"task": "code"}])
def test_unknown_labels_are_named(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(DataUnusable):
        read_rows([write(tmp_path / "r.jsonl", [row])])


@given(st.binary(max_size=60))
def test_any_bytes_are_rows_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for name in ("r.jsonl", "r.jsonl.gz"):
        (folder / name).write_bytes(data)
        try:
            read_rows([folder / name])
        except DataUnusable:
            pass


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataUnusable, match="cannot be read"):
        read_rows([tmp_path / "none.jsonl"])


@pytest.mark.parametrize(
    ("row", "may"),
    [
        (RoutingRow("1", "mmlu", "p", 0, 1, None), True),
        (RoutingRow("1", "arc_challenge", "p", 0, 1, None), False),
        (RoutingRow("1", "mbpp", "p", 0, 1, None), False),
        (TierRow("1", "arc_challenge", "p", 0), False),
        (TierRow("1", "math", "p", 0), True),
        (TaskRow("1", "mbpp", "natural", "p", "code"), True),
        (TaskRow("1", "idoft", "composed", "p", "code"), False),
        (TierRow("1", "qqp", "p", 0), False),
        (TierRow("1", "unheard of", "p", 0), False),
    ],
)
def test_licences_decide_what_ships(row: RoutingRow | TierRow | TaskRow, may: bool) -> None:
    """Weights trained on share-alike or unlicensed rows could not be given away."""
    assert shippable(row) is may
