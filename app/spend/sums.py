"""Reads the sums of days back, and adds them up by what is asked for: a day, a model, an upstream, a key, a tenant, an
agent, a kind of upstream."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import date
from typing import Final

from app.spend.cells import SEPARATOR, TRAFFIC, Row, Who, row_of, whole_of
from app.spend.span import Span
from app.store import layout
from app.store.client import Store

CHUNK: Final = 1_000
"""Fields of one read: few enough that no payment waits for it."""

Sums = Counter[str]
Group = Callable[[date, Who], str]

GROUPS: Final[Mapping[str, Group]] = {
    "model": lambda day, who: who.model,
    "upstream": lambda day, who: who.model.partition("/")[0],
    "key": lambda day, who: who.key,
    "tenant": lambda day, who: who.tenant,
    "agent": lambda day, who: who.agent,
    "day": lambda day, who: day.isoformat(),
}


async def rows(store: Store, span: Span) -> AsyncIterator[tuple[date, Row]]:
    """Every sum of these days. Raises `StoreUnavailable`."""
    for day in span.days():
        fields = await _read(store, layout.key("costs", day.isoformat()))
        for field, amount in fields.items():
            if (row := row_of(field, amount)) is not None:
                yield day, row


async def grouped(store: Store, span: Span, group_by: str) -> dict[str, Sums]:
    """The sums of these days by one of `GROUPS`; "" is those who have no such name."""
    group, found = GROUPS[group_by], dict[str, Sums]()
    async for day, row in rows(store, span):
        if row.family == TRAFFIC:
            found.setdefault(group(day, Who(*row.names)), Sums())[row.measure] += row.amount
    return found


async def ever(store: Store) -> dict[str, Sums]:
    """What every model came to since the beginning."""
    found = dict[str, Sums]()
    for field, amount in (await _read(store, layout.COSTS_TOTAL)).items():
        model, _, measure = field.decode("utf-8", "replace").partition(SEPARATOR)
        if (whole := whole_of(amount)) is not None:
            found.setdefault(model, Sums())[measure] += whole
    return found


async def _read(store: Store, key: str) -> dict[bytes, bytes]:
    """A hash, in pieces; a field that is told twice counts once."""
    found: dict[bytes, bytes] = {}
    cursor = b"0"
    while True:
        cursor, flat = await store.call("HSCAN", key, cursor, "COUNT", CHUNK, again=True)
        found.update(zip(flat[::2], flat[1::2], strict=True))
        if cursor == b"0":
            return found
