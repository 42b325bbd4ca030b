"""Open leases, as the store tells of them to those who did not make them.

A record that makes no sense here (somebody wrote by hand, a release of another day) is told of once and left where it
is: the others must not wait for it, and whoever understands it settles it. Making and ending leases is the ledger's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from app.core.errors import InternalError
from app.core.spending import Counter, Lease
from app.store import layout
from app.store.client import Store
from app.store.link import Value

OPEN: Final = b"held"
"""The state of a lease that has no end yet."""
FIELDS: Final = "sarmktn"

log = logging.getLogger("tierway.store")


class HeldLease(NamedTuple):
    """An open lease, as the store tells it to those who did not make it."""

    id: str
    root_id: str
    model: str
    held_nano: int
    counters: tuple[Counter, ...]
    note: bytes
    since_ms: int
    expires_ms: int

    @property
    def about(self) -> dict[str, str | None]:
        """What the note says, in words; nothing where it cannot be read."""
        try:
            said = orjson.loads(self.note)
        except orjson.JSONDecodeError:
            return {}
        names = said.items() if isinstance(said, dict) else ()
        return {name: word for name, word in names if word is None or isinstance(word, str)}

    def lease(self, epoch: str) -> Lease:
        return Lease(self.id, self.root_id, self.model, self.held_nano, self.counters, epoch)


class OpenLeases:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._unreadable: set[str] = set()

    async def due(self, most: int) -> list[HeldLease]:
        """Those that are due on the server's clock."""
        seconds, micros = await self._store.call("TIME", again=True)
        now_ms = int(seconds) * 1_000 + int(micros) // 1_000
        limit = most + len(self._unreadable)  # which stay due, and must not stand in the way
        return await self._found("ZRANGEBYSCORE", layout.LEASES, "-inf", now_ms, "WITHSCORES", "LIMIT", 0, limit)

    async def all(self, most: int) -> list[HeldLease]:
        """Those that are due first come first."""
        return await self._found("ZRANGE", layout.LEASES, 0, most - 1, "WITHSCORES")

    async def _found(self, *command: Value) -> list[HeldLease]:
        found = await self._store.call(*command, again=True)
        due = [(_text(found[i]), int(float(found[i + 1]))) for i in range(0, len(found), 2)]
        rows = await asyncio.gather(*(self._row(id) for id, _ in due))
        if gone := [id for (id, _), row in zip(due, rows, strict=True) if row is not None and row[0] is None]:
            await self._store.call("ZREM", layout.LEASES, *gone, again=True)  # their records outlived their time
            self._unreadable.difference_update(gone)
        read = [self._read(id, at, row) for (id, at), row in zip(due, rows, strict=True)]
        return [lease for lease in read if lease is not None]

    async def _row(self, id: str) -> Sequence[Any] | None:
        """None where something else stands in its place."""
        try:
            row: Sequence[Any] = await self._store.call("HMGET", layout.key("lease", id), *FIELDS, again=True)
        except InternalError:
            return None
        return row

    def _read(self, id: str, expires_ms: int, row: Sequence[Any] | None) -> HeldLease | None:
        """None for one that was settled between two looks, and for one that cannot be read."""
        try:
            lease = _lease(id, expires_ms, row)
        except (TypeError, ValueError, LookupError):
            if id not in self._unreadable:
                log.exception("the lease %s cannot be read: what it holds stays held until its period ends", id)
                self._unreadable.add(id)
            return None
        self._unreadable.discard(id)
        return lease


def _lease(id: str, expires_ms: int, row: Sequence[Any] | None) -> HeldLease | None:
    if row is None:
        raise TypeError("no hash")
    state, held, root, model, counters, since, note = row
    if state != OPEN:
        return None
    scopes = tuple(map(_counter, orjson.loads(bytes(counters))))
    return HeldLease(id, _text(root), _text(model), int(held), scopes, bytes(note), int(since), expires_ms)


def _counter(row: list[Any]) -> Counter:
    """A later release may have written more columns, behind those that are known."""
    counter = Counter(*row[: len(Counter._fields)])
    texts, numbers = counter[:4], (counter.limit_nano or 0, *counter[5:])
    if not (all(type(text) is str for text in texts) and all(type(number) is int for number in numbers)):
        raise TypeError("no counter")
    return counter


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace")
