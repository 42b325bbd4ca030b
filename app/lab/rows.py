"""Labelled rows from JSON lines, plain or gzip: which of two models a prompt needs (`routing`), how hard it is
(`tier`), what kind of work it asks for (`task`). A row's columns say which it is. What may be used for a model that is
shipped is said here, by source; what is learned from a row is decided in `lessons`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from app.core.verdict import TASKS, TIER_NAMES

LICENCES: Final[Mapping[str, tuple[str, bool]]] = {
    "mmlu": ("outcomes Apache-2.0 (RouteLLM), questions MIT", True),
    "gsm8k": ("outcomes Apache-2.0 (RouteLLM), questions MIT", True),
    "mmlu_pro": ("Apache-2.0", True),
    "routerarena": ("Apache-2.0", True),
    "debugbench": ("Apache-2.0", True),
    "arc_challenge": ("CC BY-SA 4.0", False),
    "mbpp": ("tasks CC BY 4.0, outcomes from a repository that states no licence", False),
    "math": ("MIT", True),
    "livecodebench": ("MIT", True),
    "arena_hard_v0.1": ("Apache-2.0", True),
    "self_instruct": ("Apache-2.0", True),
    "vicuna_bench": ("Apache-2.0", True),
    "humaneval": ("MIT", True),
    "testeval": ("MIT", True),
    "coverageeval": ("MIT", True),
    "system_design_primer": ("CC BY 4.0", True),
    "written": ("written for the data set", True),
    "idoft": ("no licence stated", False),
}
"""What each source is licensed as, and whether a model that is shipped may be trained on it."""


class DataUnusable(Exception):
    """A file of rows is missing or a row is not what its columns promise."""


@dataclass(frozen=True, slots=True)
class RoutingRow:
    """How well a weak and a strong model answered. `hard`: the share of many models that failed, where it is known."""

    id: str
    suite: str
    prompt: str
    weak: float
    strong: float
    hard: float | None

    @property
    def source(self) -> str:
        return self.suite


@dataclass(frozen=True, slots=True)
class TierRow:
    id: str
    source: str
    prompt: str
    tier: int


@dataclass(frozen=True, slots=True)
class TaskRow:
    id: str
    source: str
    kind: str
    prompt: str
    task: str


Row = RoutingRow | TierRow | TaskRow


@dataclass(frozen=True, slots=True)
class Rows:
    routing: tuple[RoutingRow, ...] = ()
    tier: tuple[TierRow, ...] = ()
    task: tuple[TaskRow, ...] = ()

    def __len__(self) -> int:
        return len(self.routing) + len(self.tier) + len(self.task)

    def where(self, keep: Callable[[Row], bool]) -> Rows:
        return Rows(
            tuple(row for row in self.routing if keep(row)),
            tuple(row for row in self.tier if keep(row)),
            tuple(row for row in self.task if keep(row)),
        )


def shippable(row: Row) -> bool:
    """Whether a model that is shipped may be trained on it; a source nobody has looked at may not."""
    if isinstance(row, TaskRow) and row.source == "mbpp":
        return True  # the task's text alone, whose licence allows it; what is kept out is outcomes
    return LICENCES.get(row.source, ("", False))[1]


def read_rows(paths: Iterable[Path]) -> Rows:
    """Every row of the files, and of the `*.jsonl` and `*.jsonl.gz` files in the folders."""
    rows: dict[type, list[Any]] = {RoutingRow: [], TierRow: [], TaskRow: []}
    for path in paths:
        for file in _files(path):
            for row in _rows(file):
                rows[type(row)].append(row)
    return Rows(*map(tuple, rows.values()))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.name.endswith((".jsonl", ".jsonl.gz")))


def _rows(path: Path) -> Iterator[Row]:
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if path.name.endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataUnusable(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(text.split(b"\n"), 1):
        if line.strip():
            try:
                row = _row(orjson.loads(line))
            except (ValueError, KeyError, TypeError, ArithmeticError) as error:
                why = f"has no {error}" if isinstance(error, KeyError) else str(error)
                raise DataUnusable(f"{path}, line {number}: {why}") from error
            if row is not None:
                yield row


def _row(columns: Mapping[str, Any]) -> Row | None:
    """None for rows of other questions, which may lie in the same folder."""
    if "suite" in columns:
        return RoutingRow(
            **_texts(columns, "id", "suite", "prompt"),
            weak=_share(columns["weak"]),
            strong=_share(columns["strong"]),
            hard=1 - _share(columns["solved"] / columns["models"]) if "solved" in columns else None,
        )
    if "tier" in columns:
        texts = _texts(columns, "id", "source", "prompt")
        return TierRow(**texts, tier=TIER_NAMES.index(columns["tier"]))
    if "task" in columns:
        if columns["task"] not in TASKS:
            raise ValueError(f"no such task type: {columns['task']!r}")
        texts = _texts(columns, "id", "source", "kind", "prompt", "task")
        return TaskRow(**texts)
    return None


def _texts(columns: Mapping[str, Any], *names: str) -> dict[str, str]:
    for name in names:
        if not isinstance(columns[name], str):
            raise TypeError(f"{name} is no text")
    return {name: columns[name] for name in names}


def _share(value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"not between 0 and 1: {value!r}")
    return float(value)
