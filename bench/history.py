"""Runs that were made before: stored whole beside the code, kept in short with it, and compared.

A whole run is a JSON file in a folder that git ignores. Its figures are one line of `history/runs.jsonl`, which belongs
to the code: written when a run has a note that says what was changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from bench.report import Document, Measured, markdown, measured, written
from bench.workloads import DETAILS, FIGURES, Figure

CLEAR: Final = 0.05
"""A smaller change says nothing, whatever the repetitions say."""
LAST: Final = "LAST"

Summary = Mapping[str, Any]


def summary(document: Document) -> dict[str, Any]:
    """A run in short: of every target each figure, with the least and the most of its repetitions."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in document["targets"]:
        seen = {figure.id: measured(document, name, figure) for figure in (*FIGURES, *DETAILS)}
        found[name] = {id: list(each) for id, each in seen.items() if each is not None}
    about = ("time", "commit", "note", "upstream", "repetitions", "machine")
    return {**{name: document.get(name) for name in about}, "figures": found}


# --- keeping ---------------------------------------------------------------------------------------------------------


def store(document: Document, folder: Path) -> Path:
    """The whole run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{str(document['time']).replace(':', '')}.json"
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return path


def keep(document: Document, file: Path) -> None:
    """Its figures, as one line more."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as lines:
        lines.write(orjson.dumps(summary(document), option=orjson.OPT_APPEND_NEWLINE))


def documents(folder: Path) -> list[dict[str, Any]]:
    """The whole runs, oldest first."""
    return [orjson.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]


def past(folder: Path, file: Path) -> list[Summary]:
    """All runs in short, oldest first; each once, though it may be stored and kept."""
    kept = [orjson.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []
    runs = {run["time"]: run for run in (*kept, *map(summary, documents(folder)))}
    return [runs[time] for time in sorted(runs)]


def picked(runs: Sequence[Summary], which: str) -> Summary:
    """The last one, or the last whose time or commit starts so. Raises `ValueError`."""
    for run in reversed(runs):
        if which == LAST or run["time"].startswith(which) or (run["commit"] or "").startswith(which):
            return run
    raise ValueError(f"no run {which} is stored" if which != LAST else "no run is stored yet")


# --- comparing -------------------------------------------------------------------------------------------------------


def differences(before: Summary, now: Summary) -> str:
    """A row for each figure of each target that both runs measured."""
    rows = [["", "before", "now", "change"]]
    for target, figures in now["figures"].items():
        earlier = before["figures"].get(target, {})
        rows += [
            _difference(target, figure, Measured(*earlier[figure.id]), Measured(*figures[figure.id]))
            for figure in (*FIGURES, *DETAILS)
            if figure.id in figures and figure.id in earlier
        ]
    return "\n\n".join((_heading(before, now), markdown(rows)))


def _heading(before: Summary, now: Summary) -> str:
    said = [f"against {before['time']} ({before['commit'] or 'no commit'})"]
    said += [f"note: {before['note']}"] if before["note"] else []
    for name in ("upstream", "machine"):
        if before[name] != now[name]:
            said.append(f"another {name}: {before[name]}")
    return "; ".join(said) + ". In bold: the repetitions of the two do not overlap."


def _difference(target: str, figure: Figure, before: Measured, now: Measured) -> list[str]:
    change = (now.median - before.median) / before.median if before.median else None
    said = "-" if change is None else f"{change:+.0%}"
    clear = change is not None and abs(change) >= CLEAR and (now.least > before.most or now.most < before.least)
    numbers = (written(each.median, figure.digits) for each in (before, now))
    return [f"{target}, {figure.label}", *numbers, f"**{said}**" if clear else said]


def history(runs: Sequence[Summary], target: str) -> str:
    """One row for each run that has the target, oldest first."""
    rows = [["time", "commit", "note", "upstream", *(figure.label for figure in FIGURES)]]
    for run in runs:
        if target in run["figures"]:
            seen = run["figures"][target]
            cells = [written(seen[each.id][0] if each.id in seen else None, each.digits) for each in FIGURES]
            about = (run["time"], run["commit"] or "-", run["note"] or "-", run["upstream"])
            rows.append([*about, *cells])
    return markdown(rows)
