"""Keeps conversations in the store: each turn is appended when it is over, before its caller is told so.

A session belongs to a tenant, else to a key, else to whoever needs none; its name in the store is a digest of both, so
that nobody can even ask for another's. Nothing stays in this process. Two turns at the same time are kept in the order
in which they end; one that rewrote the conversation stands if it ends last; one whose session was deleted meanwhile
leaves nothing. All sessions together have a room of their own, so that they never take the ledger's.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import orjson

from app.core.caller import Caller
from app.core.clock import Clock
from app.core.errors import StoreUnavailable
from app.core.tasks import ErrorHandler, TaskOwner
from app.sessions.said import PIECES_MAX, Kept, Said, read_kept, write_fields
from app.sessions.window import SHARE, staying
from app.store import layout
from app.store.client import Store
from app.store.scripts import load

Json = Mapping[str, Any]

ROOM_BYTES: Final = 268_435_456
TTL_DAYS: Final = 30
MAX_BYTES: Final = 4_194_304
LATE_MAX: Final = 1_000  # turns that wait for the store to come back
LATE_SECONDS: Final = 60.0
LATE_PAUSE: Final = 0.25

GET: Final = load("session_get")
PUT: Final = load("session_put")
DROP: Final = load("session_drop")


class Turn(NamedTuple):
    """What a finished turn adds to a session: the first `stays` kept messages stay, `said` comes behind them. `days`
    None: as long as sessions are kept at all."""

    stays: int
    said: tuple[Said, ...]
    system: tuple[Json, ...]
    model: str
    hidden: frozenset[int] = frozenset()
    days: int | None = None
    rollout: str | None = None


def new_id() -> str:
    return f"sess_{uuid.uuid4().hex}"


def place_of(caller: Caller, session: str) -> str:
    """Where a caller's session of this name is kept."""
    owner = ["tenant", caller.tenant] if caller.tenant else ["key", caller.key_id] if caller.key_id else ["anybody"]
    return hashlib.blake2b(orjson.dumps([*owner, session]), digest_size=16).hexdigest()


class Sessions:
    """The service. `tasks` are awaited at shutdown."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        tasks: TaskOwner,
        on_error: ErrorHandler,
        *,
        ttl_days: int = TTL_DAYS,
        max_bytes: int = MAX_BYTES,
        room: int = ROOM_BYTES,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self._on_error = on_error
        self._ttl_days = ttl_days
        self.max_bytes = max_bytes
        self._room = max(room, max_bytes)
        self._sleep = sleep
        self._late: Counter[str] = Counter()

    async def load(self, place: str) -> Kept:
        """The session as it stands; one of nothing where there is none. Raises `StoreUnavailable`."""
        if self._late[place]:
            raise StoreUnavailable("The last turn of this session is still to be written down.", retry_after=1)
        about, entries = await self._store.run(GET, _keys(place)[:2], again=True)
        return read_kept(about, entries)

    async def keep(self, place: str, kept: Kept, turn: Turn) -> None:
        """Adds a finished turn to what `load` gave. Raises nothing: a store that is away gets it a little later."""
        whole, appended = self._after(kept, turn)
        seconds = layout.DAY * min(self._ttl_days, self._ttl_days if turn.days is None else turn.days)
        write = _Write(place, secrets.token_hex(8), kept, whole, appended, seconds)
        try:
            await self._put(write)
        except StoreUnavailable as error:
            if self._late.total() >= LATE_MAX:
                self._on_error("a turn of a session was lost", error)
                return
            self._late[place] += 1
            self._tasks.spawn(self._put_late(write), "keep a turn")

    async def delete(self, place: str) -> bool:
        """Whether there was such a session. Raises `StoreUnavailable`."""
        return bool(await self._store.run(DROP, _keys(place), (place, "0"), again=True))

    def _after(self, kept: Kept, turn: Turn) -> tuple[Kept, int]:
        """The session after a turn, and how many of its messages are to be appended: all of them (or none that stay)
        where it had to be rewritten."""
        now = self._clock.now()
        after = replace(
            kept,
            said=(*kept.said[: turn.stays], *turn.said),
            system=turn.system,
            model=turn.model,
            rollout=turn.rollout,
            hidden=frozenset(at for at in turn.hidden if at < turn.stays),
            turns=kept.turns + 1,
            created_at=kept.created_at or now,
            updated_at=now,
        )
        shorter = self._bounded(after)
        return shorter, len(turn.said) if shorter is after else len(shorter.said)

    def _bounded(self, kept: Kept) -> Kept:
        """Without its oldest messages, where it grew too large; without any, where the last turn alone is too large."""
        piece = self.max_bytes / PIECES_MAX
        sizes = [max(len(each.data), round(each.pieces * piece)) for each in kept.said]
        if sum(sizes) <= self.max_bytes:
            return kept
        stays = staying([each.message["role"] for each in kept.said], sizes, int(self.max_bytes * SHARE))
        if sum(sizes[at] for at in stays) > self.max_bytes:
            stays = []
        return replace(
            kept,
            said=tuple(kept.said[at] for at in stays),
            hidden=frozenset(new for new, old in enumerate(stays) if old in kept.hidden),
            dropped=kept.dropped + len(kept.said) - len(stays),
        )

    async def _put(self, write: _Write) -> None:
        answer = await self._store.run(PUT, _keys(write.place), write.arguments(self._room), again=True)
        if answer[0] == b"changed":
            answer = await self._store.run(PUT, _keys(write.place), write.whole_again(self._room), again=True)
        for name in answer[1:]:
            gone = name.decode()
            await self._store.run(DROP, _keys(gone), (gone, "1"), again=True)

    async def _put_late(self, write: _Write) -> None:
        give_up = self._clock.monotonic() + LATE_SECONDS
        try:
            while True:
                await self._sleep(LATE_PAUSE)
                try:
                    return await self._put(write)
                except StoreUnavailable as error:
                    if self._clock.monotonic() >= give_up:
                        self._on_error("a turn of a session was lost", error)
                        return
        finally:
            self._late[write.place] -= 1
            self._late += Counter()  # forgets those that have none left


class _Write(NamedTuple):
    """One turn on its way to the store. `token` tells it from any other, so that it may be sent twice."""

    place: str
    token: str
    before: Kept
    after: Kept
    appended: int
    seconds: int

    def arguments(self, room: int) -> Sequence[str | bytes | int]:
        said = self.after.said
        stays = len(said) - self.appended
        if stays == len(self.before.said):
            return self._with(-1, said[stays:], room, whatever=False)
        return self._with(stays, said[stays:], room, whatever=False)

    def whole_again(self, room: int) -> Sequence[str | bytes | int]:
        return self._with(0, self.after.said, room, whatever=True)

    def _with(self, stays: int, said: Sequence[Said], room: int, *, whatever: bool) -> Sequence[str | bytes | int]:
        fields = write_fields(self.after)
        return (
            self.place,
            self.token,
            self.before.born,
            self.before.version,
            stays,
            sum(len(each.data) for each in self.after.said[: max(0, stays)]),
            int(whatever),
            self.seconds,
            room,
            len(fields),
            *fields,
            *(each.data for each in said),
        )


def _keys(place: str) -> tuple[str, str, str, str]:
    return layout.key("session", place), layout.key("session-said", place), layout.SESSIONS, layout.SESSIONS_BYTES
