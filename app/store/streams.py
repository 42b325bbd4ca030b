"""Streams that can be resumed, as the store has them: typed calls, no policy.

Of each stream the store knows who makes it and how far it is, its encoded events in batches, and what it came to. Who
makes one says so all the time; one whose maker is silent is broken. Each kind lives as long as its partition. All
events together have a room of their own, so that they never take the ledger's: those that expire first go first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from app.store import layout
from app.store.client import Store
from app.store.scripts import load

OPEN: Final = load("stream_open")
APPEND: Final = load("stream_append")
READ: Final = load("stream_read")
ABOUT: Final = load("stream_about")

ROOM_BYTES: Final = 134_217_728
STREAM_BYTES: Final = 16_777_216
LEASE_SECONDS: Final = 5.0
BATCHES: Final = 8
"""The most that are read at once."""


class State(StrEnum):
    RUNNING = "running"
    ENDED = "ended"  # with its last event, be that `[DONE]` or an error
    BROKEN = "broken"  # its gateway fell silent
    DROPPED = "dropped"  # it grew too large, or there was no room


class Page(NamedTuple):
    """Batches of events, each with the number of its last one; the first may begin with what is known already."""

    state: State
    batches: tuple[tuple[int, bytes], ...]


class Gone(NamedTuple):
    """The events are no more; this is what is told about the stream."""

    about: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Lives:
    """Seconds that the kinds live; arguments for tests' sake."""

    stream: int = layout.lifetime("stream")
    chunks: int = layout.lifetime("stream-chunks")
    about: int = layout.lifetime("stream-about")


class StreamStore:
    """Names are the callers' affair; they are hard to guess. Every call may be sent twice, and raises
    `StoreUnavailable`."""

    def __init__(
        self,
        store: Store,
        *,
        lives: Lives | None = None,
        lease_seconds: float = LEASE_SECONDS,
        room_bytes: int = ROOM_BYTES,
        stream_bytes: int = STREAM_BYTES,
    ) -> None:
        self._store = store
        self._lives = lives or Lives()
        self._lease_ms = round(lease_seconds * 1_000)
        self._room = room_bytes
        self._most = stream_bytes
        self.renew_seconds = lease_seconds / 3

    async def open(self, name: str, by: str) -> bool:
        """Begins a stream; whether there is room for it. `by` tells its maker from any other."""
        lives = self._lives
        keys = (*_keys(name, "stream", "stream-about"), layout.STREAMS, layout.STREAMS_BYTES)
        args = (by, self._lease_ms, lives.stream, lives.about, self._room, lives.chunks)
        return bool(await self._store.run(OPEN, keys, args, again=True))

    async def append(
        self, name: str, by: str, last: int = 0, events: bytes = b"", state: State = State.RUNNING
    ) -> float | None:
        """Adds events up to the number `last`, or just says that the stream is alive. The seconds since somebody read
        it in the store (inf: nobody did); None: it is kept no more."""
        lives = self._lives
        args = (
            *(name, by, self._lease_ms, state, last, events),
            *(lives.stream, lives.chunks, self._room, self._most),
        )
        keys = (*_keys(name, "stream", "stream-chunks"), layout.STREAMS, layout.STREAMS_BYTES)
        answer = await self._store.run(APPEND, keys, args, again=True)
        if not answer:
            return None
        for other in answer[1:]:
            await self._store.call("DEL", layout.key("stream-chunks", other.decode()), again=True)
        return float("inf") if answer[0] < 0 else answer[0] / 1_000

    async def read(self, name: str, after: int) -> Page | Gone | None:
        """What comes after the event of this number; None: there was no such stream."""
        keys = _keys(name, "stream", "stream-chunks", "stream-about")
        kind, *rest = await self._store.run(READ, keys, (after, BATCHES), again=True)
        if kind == b"never":
            return None
        if kind == b"gone":
            return Gone(_pairs(rest))
        state, rows = rest
        return Page(State(state.decode()), tuple((_number(row[0]), row[1][1]) for row in rows))

    async def tell(self, name: str, about: Mapping[str, str | int]) -> None:
        """Adds to what is told about a stream once its events are gone."""
        pairs = [each for pair in about.items() for each in pair]
        await self._store.run(ABOUT, _keys(name, "stream-about"), (self._lives.about, *pairs), again=True)


def _keys(name: str, *partitions: str) -> tuple[str, ...]:
    return tuple(layout.key(partition, name) for partition in partitions)


def _pairs(flat: Sequence[bytes]) -> dict[str, str]:
    return {name.decode(): value.decode("utf-8", "replace") for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _number(id_: Any) -> int:
    return int(id_.partition(b"-")[0])
