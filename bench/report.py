"""From records to tables: medians over the repetitions, Markdown, the stored JSON, and the history of one target."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from bench.targets import DIRECT
from bench.workloads import FIGURES, Figure

NONE: Final = "-"

Document = Mapping[str, Any]


def value(document: Document, target: str, figure: Figure) -> float | None:
    """A figure of a target: the median over its records; None where it was not measured."""
    if figure.workload is None:
        found = document["targets"].get(target, {}).get(figure.key)
        return None if found is None else float(found)
    values = [
        record[figure.key]
        for record in document["records"]
        if record["target"] == target and record["workload"] == figure.workload and figure.key in record
    ]
    if not values:
        return None
    if not figure.added:
        return float(statistics.median(values))
    base = None if target == DIRECT else value(document, DIRECT, _plain(figure))
    return None if base is None else max(0.0, statistics.median(values) - base)


def _plain(figure: Figure) -> Figure:
    return Figure(figure.label, figure.workload, figure.key, figure.digits)


def spread(document: Document, target: str, figure: Figure) -> float | None:
    """How far the repetitions are apart, as a share of their median."""
    if figure.workload is None:
        return None
    values = [
        record[figure.key]
        for record in document["records"]
        if record["target"] == target and record["workload"] == figure.workload and figure.key in record
    ]
    return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 and any(values) else None


def written(number: float | None, digits: int) -> str:
    return NONE if number is None else f"{number:,.{digits}f}"


def table(document: Document, figures: Sequence[Figure]) -> str:
    """A row for each figure that somebody has, a column for each target."""
    names = list(document["targets"])
    rows = [["", *names]]
    for figure in figures:
        cells = [written(value(document, name, figure), figure.digits) for name in names]
        if any(cell != NONE for cell in cells):
            rows.append([figure.label, *cells])
    return _markdown(rows) if len(rows) > 1 else ""


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|---|" + "---:|" * (len(rows[0]) - 1)
    return "\n".join([head, rule, *rest])


def complaints(document: Document) -> list[str]:
    """What a reader must know before believing the table: errors, other load, repetitions far apart."""
    found = [
        f"{record['target']}, {record['workload']}: {record['errors']}"
        for record in document["records"]
        if record["errors"]
    ]
    found += [
        f"{record['target']}, {record['workload']}: only {record['streams_open']} of {record['connections']}"
        " streams were open"
        for record in document["records"]
        if record.get("fresh") and record["streams_open"] < record["connections"]
    ]
    busy = [record["foreign"] for record in document["records"] if record.get("foreign", 0) > 0.05]
    if busy:
        found.append(f"other processes used up to {max(busy):.0%} of the gateway's core in {len(busy)} measurements")
    for name in document["targets"]:
        for figure in FIGURES:
            apart = spread(document, name, figure)
            if figure.key.startswith("cpu") and apart is not None and apart > 0.25:
                found.append(f"{name}, {figure.label}: repetitions are {apart:.0%} apart")
    return found


def store(document: Document, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{str(document['time']).replace(':', '')}.json"
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return path


def history(folder: Path, target: str) -> str:
    """One row for each stored run of a target, oldest first."""
    rows = [["time", "upstream", *(figure.label for figure in FIGURES)]]
    for path in sorted(folder.glob("*.json")):
        document = orjson.loads(path.read_bytes())
        if target in document["targets"]:
            cells = [written(value(document, target, figure), figure.digits) for figure in FIGURES]
            rows.append([document["time"], document["upstream"], *cells])
    return _markdown(rows)
