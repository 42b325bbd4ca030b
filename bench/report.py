"""From the records of one run to tables: medians over the repetitions, in Markdown, and what makes them doubtful."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from bench.targets import DIRECT
from bench.workloads import FIGURES, Figure

NONE: Final = "-"
ALONE_SHARE: Final = 0.98
"""What is nearly all needs no second number."""

Document = Mapping[str, Any]


class Measured(NamedTuple):
    """A figure: the median of its repetitions, and the least and most of them."""

    median: float
    least: float
    most: float

    @property
    def apart(self) -> float | None:
        """How far the repetitions are apart, as a share of their median."""
        return (self.most - self.least) / self.median if self.most > self.least else None


def measured(document: Document, target: str, figure: Figure) -> Measured | None:
    """None where it was not measured."""
    if figure.workload is None:
        found = document["targets"].get(target, {}).get(figure.key)
        return None if found is None else Measured(found, found, found)
    values = [
        record[figure.key]
        for record in document["records"]
        if record["target"] == target and record["workload"] == figure.workload and figure.key in record
    ]
    if not values:
        return None
    seen = Measured(statistics.median(values), min(values), max(values))
    if not figure.added:
        return seen
    base = None if target == DIRECT else measured(document, DIRECT, replace(figure, added=False))
    return None if base is None else Measured(*(max(0.0, each - base.median) for each in seen))


def value(document: Document, target: str, figure: Figure) -> float | None:
    found = measured(document, target, figure)
    return None if found is None else found.median


def written(number: float | None, digits: int) -> str:
    return NONE if number is None else f"{number:,.{digits}f}"


def cell(document: Document, target: str, figure: Figure) -> str:
    """In brackets, what it is without the processes of a store, where that is less."""
    whole = value(document, target, figure)
    said = written(whole, figure.digits)
    if whole is None or figure.alone is None:
        return said
    alone = value(document, target, replace(figure, key=figure.alone))
    return said if alone is None or alone > ALONE_SHARE * whole else f"{said} ({written(alone, figure.digits)})"


def table(document: Document, figures: Sequence[Figure], *, goals: bool = False) -> str:
    """A row for each figure that somebody has, a column for each target; and what Tierway should reach."""
    names = list(document["targets"])
    rows = [["", *names, *(["goal: first, then"] if goals else [])]]
    for figure in figures:
        cells = [cell(document, name, figure) for name in names]
        if any(each != NONE for each in cells):
            rows.append([figure.label, *cells, *([_goals(figure)] if goals else [])])
    return markdown(rows) if len(rows) > 1 else ""


def _goals(figure: Figure) -> str:
    return NONE if figure.goals is None else ", then ".join(f"{goal:g}" for goal in figure.goals)


def markdown(rows: Sequence[Sequence[str]]) -> str:
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
            seen = measured(document, name, figure)
            apart = None if seen is None else seen.apart
            if figure.key.startswith("cpu") and apart is not None and apart > 0.25:
                found.append(f"{name}, {figure.label}: repetitions are {apart:.0%} apart")
    return found


# --- for the README --------------------------------------------------------------------------------------------------

TITLES: Final = {
    "tierway": "**Tierway, all features on**",
    "tierway-plain": "Tierway, a free model",
    "nginx": "nginx",
    "litellm": "LiteLLM",
    "portkey": "Portkey",
    "tensorzero": "TensorZero (Rust)",
}


def readme(document: Document, command: str) -> str:
    """The table of the README: the rows that have goals, when and where they were measured, and how to repeat them."""
    titles = {name: TITLES.get(name, name) for name in document["targets"] if name != DIRECT}
    rows = [["", *titles.values()]]
    for figure in FIGURES:
        cells = {name: cell(document, name, figure) for name in titles}
        if figure.goals is not None and any(each != NONE for each in cells.values()):
            rows.append([figure.label, *(f"**{each}**" if name == "tierway" else each for name, each in cells.items())])
    machine = document["machine"]
    said = (
        f"Measured on {document['time'][:10]} with version {machine['tierway']} ({document['commit'] or 'no commit'}),"
        f" {machine['cores']} cores of {machine['cpu']}, {machine['system'].partition('-with')[0]},"
        f" Python {machine['python']}; medians of {document['repetitions']} repetitions, the gateway alone on one core,"
        f" over the {document['upstream']} upstream. In brackets: without the process of the store."
        f" To repeat it: `{command}`."
    )
    return f"{markdown(rows)}\n\n{said}"
