"""What the script that settles is asked: many settlements at once, with what all of them count on named only once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from app.core.spending import CostCell, Counter, Lease
from app.store import layout
from app.store.link import Value
from app.store.together import Places

KEPT_MS: Final = 33 * layout.DAY * 1_000
"""How long a counter outlives its period, so that what began in it can end in it, and reports can read it."""


class Settlement(NamedTuple):
    """`key` is the lease's own; `actual` is charged, '' for all that is held."""

    key: str
    lease: Lease
    actual: int | str
    final: str
    cells: Sequence[CostCell]


def kept_ms(counter: Counter) -> int:
    """How long a counter is kept, after its end or else after its last change."""
    return KEPT_MS if counter.ends_ms else counter.keep_ms


def asked(some: Sequence[Settlement], keys: Sequence[str], rest: Sequence[Value]) -> tuple[list[str], list[Value]]:
    """Keys and arguments of `settle.lua`, whose first keys and constant arguments are given."""
    named = [*keys, *[each.key for each in some]]
    places = Places(named)
    counters: dict[str, int] = {}
    cells: dict[tuple[str, str], int] = {}
    shared: list[Value] = []
    fields: list[Value] = []
    rows: list[Value] = []
    for _, lease, actual, final, booked in some:
        rows += (lease.epoch, lease.id, actual, final, len(lease.counters), len(booked))
        for counter in lease.counters:
            number = counters.get(counter.key)
            if number is None:
                number = counters[counter.key] = len(counters) + 1
                shared += (places[counter.key], counter.ends_ms, kept_ms(counter))
            rows.append(number)
        for cell in booked:
            name = cell[:2]
            number = cells.get(name)
            if number is None:
                number = cells[name] = len(cells) + 1
                fields += (places[cell.key], cell.field, cell.seconds)
            rows += (number, cell.amount)
    return named, [len(some), len(counters), len(cells), *rest, *shared, *fields, *rows]
