"""The ledger's keys as a whole: counted, written anew or removed by an operator's command while gateways may not spend.

Beside `ledger`, which changes them lease by lease. Everything written here says what is, so a command that broke off
can be given again. The epoch goes first and comes last: without it nothing is admitted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from app.core.spending import Counter
from app.store import layout
from app.store.client import Store
from app.store.ledger import EXPIRED, HELD, OPEN_MS
from app.store.settling import KEPT_MS

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE: Final = 500
SPEND: Final = tuple(each for name, each in layout.PARTITIONS.items() if name.partition("-")[0] == "spend")
COSTS: Final = tuple(each for name, each in layout.PARTITIONS.items() if name.partition("-")[0] == "costs")


class Counted(NamedTuple):
    """`ending`: its period is over, or it has no end and is soon forgotten."""

    used_nano: int
    held_nano: int
    ending: bool


class OpenLease(NamedTuple):
    held_nano: int
    keys: tuple[str, ...]


class Written(NamedTuple):
    """A counter as it is to be. `over_ms`: when one that has no end may be forgotten; 0 never."""

    counter: Counter
    used_nano: int
    over_ms: int


class Unsettled(NamedTuple):
    """A lease that is charged. While it is `expired` who settles it late corrects that, and the `cells` that its charge
    put there; else it is final."""

    id: str
    held_nano: int
    charged_nano: int
    cells: Sequence[tuple[str, str, int]] = ()
    final: str = EXPIRED


class Amounts(NamedTuple):
    """Numbers of the cost aggregates; `over_ms`: when their key is forgotten, 0 never."""

    key: str
    fields: Mapping[str, int]
    over_ms: int


def counts_spend(key: str) -> bool:
    """Whether the key is one of a counter; anything else must not be written as one."""
    return any(each.holds(key) for each in SPEND)


def sums_costs(key: str) -> bool:
    return any(each.holds(key) for each in COSTS)


class LedgerKeys:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def now_ms(self) -> int:
        seconds, micros = await self._store.call("TIME", again=True)
        return int(seconds) * 1_000 + int(micros) // 1_000

    async def epoch(self) -> str:
        """'' : there is none."""
        found = await self._store.call("GET", layout.EPOCH, again=True)
        return "" if found is None else bytes(found).decode("utf-8", "replace")

    async def begin(self, epoch: str) -> None:
        await self._store.call("SET", layout.EPOCH, epoch, again=True)

    async def end(self) -> None:
        """From now on nothing is admitted."""
        await self._store.call("DEL", layout.EPOCH, again=True)

    async def counters(self) -> dict[str, Counted]:
        return dict(await self._each(await self._keys(*SPEND), self._counted))

    async def _counted(self, key: str) -> tuple[str, Counted]:
        values, left = await asyncio.gather(
            self._store.call("HMGET", key, "u", "h", again=True), self._store.call("PTTL", key, again=True)
        )
        return key, Counted(int(values[0] or 0), int(values[1] or 0), -1 < left < KEPT_MS)

    async def open_leases(self) -> dict[str, OpenLease]:
        ids = [_text(id) for id in await self._store.call("ZRANGE", layout.LEASES, 0, -1, again=True)]
        found = await self._each(ids, self._open_lease)
        return {id: lease for id, lease in found if lease is not None}

    async def _open_lease(self, id: str) -> tuple[str, OpenLease | None]:
        """None for one that was settled meanwhile."""
        state, held, counters = await self._store.call("HMGET", layout.key("lease", id), "s", "a", "k", again=True)
        if state != HELD.encode():
            return id, None
        return id, OpenLease(int(held), tuple(row[3] for row in orjson.loads(bytes(counters))))

    async def write(
        self,
        counters: Sequence[Written],
        leases: Sequence[Unsettled],
        costs: Sequence[Amounts],
        done: Callable[[int], None],
    ) -> None:
        """`done` is told how many of them were written."""
        await self._each(counters, self._write_counter, done)
        await self._each(leases, self._write_lease, done)
        await self._each(costs, self._write_amounts, done)

    async def _write_counter(self, written: Written) -> None:
        counter = written.counter
        over_ms = counter.ends_ms + KEPT_MS if counter.ends_ms else written.over_ms
        await self._store.call("HSET", counter.key, "u", written.used_nano, "h", 0, again=True)
        if over_ms:
            await self._store.call("PEXPIREAT", counter.key, over_ms, again=True)

    async def _write_lease(self, lease: Unsettled) -> None:
        key = layout.key("lease", lease.id)
        booked = [word for key_, field, amount in lease.cells for word in (f"x:{key_}:{field}", amount)]
        fields = ("s", lease.final, "a", lease.held_nano, "c", lease.charged_nano)
        await self._store.call("HSET", key, *fields, *booked, again=True)
        await self._store.call("PEXPIRE", key, OPEN_MS, again=True)

    async def _write_amounts(self, costs: Amounts) -> None:
        words = [word for pair in costs.fields.items() for word in pair]
        await self._store.call("HSET", costs.key, *words, again=True)
        if costs.over_ms:
            await self._store.call("PEXPIREAT", costs.key, costs.over_ms, again=True)

    async def clear(self) -> int:
        """Removes all counters and leases and says how many keys that were. Costs that were booked stay."""
        keys = await self._keys(*SPEND, layout.PARTITIONS["lease"])
        await self._each(keys, self._remove)
        await self._store.call("DEL", layout.LEASES, again=True)
        return len(keys)

    async def _remove(self, key: str) -> None:
        await self._store.call("UNLINK", key, again=True)

    async def _keys(self, *partitions: layout.Partition) -> list[str]:
        """Each once, in order."""
        found: set[str] = set()
        for partition in partitions:
            cursor: Any = b"0"
            while True:
                pattern = f"{partition.prefix}:*"
                cursor, keys = await self._store.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1_000, again=True)
                found.update(map(_text, keys))
                if bytes(cursor) == b"0":
                    break
        return sorted(found)

    async def _each(
        self,
        items: Sequence[T],
        work: Callable[[T], Coroutine[Any, Any, R]],
        done: Callable[[int], None] = lambda _: None,
    ) -> list[R]:
        """In pieces, so that neither end has too much to do at once."""
        results: list[R] = []
        for start in range(0, len(items), AT_ONCE):
            piece = items[start : start + AT_ONCE]
            results += await asyncio.gather(*map(work, piece))
            done(len(piece))
        return results


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace")
