"""A stream that this gateway makes and that outlives its client: events go into its tail at the upstream's pace, from
there to the store in batches, and to readers here.

Who makes the answer and what events look like is left to the edge, how those who come back find it to `resumable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.core.errors import GatewayError, StoreUnavailable
from app.core.events import Start
from app.core.record import Record
from app.gateway.tail import BATCH_EVENTS, Tail
from app.store.streams import State, StreamStore

BEHIND_SECONDS: Final = 0.04
"""How long events wait for others to go to the store with; the call takes its time too."""
LATER_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""When to try again to tell the store of the end."""
SEEN_SECONDS: Final = 2.0
"""For how long a reader elsewhere counts as there at least: it says so every now and then."""

log = logging.getLogger("tierway.streams")


@dataclass(frozen=True, slots=True)
class Bounds:
    """`orphan_seconds`: how long a stream runs on with nobody who reads it."""

    orphan_seconds: float = 60.0
    buffer_bytes: int = 262_144


class Live:
    """One stream that is made here. Its maker calls `begin` or `fail`, `add`, and at last `end`, and runs `tend` beside
    that, which returns when nobody reads the stream any more."""

    def __init__(self, id: str, name: str, calls: StreamStore, bounds: Bounds) -> None:
        self.id = id
        self.name = name
        self.by = secrets.token_hex(8)
        self.tail = Tail(bounds.buffer_bytes)
        self._calls = calls
        self._orphan_seconds = bounds.orphan_seconds
        loop = asyncio.get_running_loop()
        self._time = loop.time
        self._readers = 0
        self._left_at = loop.time()
        self._seen_at = float("-inf")  # when somebody read it elsewhere
        self._abandoned = False
        self._head: asyncio.Future[Start] = loop.create_future()
        self.record: asyncio.Future[Record] = loop.create_future()
        self._stir = asyncio.Event()
        self._storing = asyncio.Lock()
        self._away = False

    # --- who makes it -------------------------------------------------------------------------------------------------

    def begin(self, start: Start) -> None:
        if not self._head.done():
            self._head.set_result(start)

    def fail(self, error: GatewayError) -> None:
        """It ended with this; whoever waits for its beginning is told."""
        if not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # looked at even when nobody waits, or asyncio reports it as lost

    async def add(self, data: bytes) -> None:
        """Adds encoded events. Waits only where there is no room: until the store has some of them, or, when it has
        none, a reader."""
        tail = self.tail
        tail.add(data)
        self._stir.set()
        if tail.behind >= BATCH_EVENTS and not self._away:
            await self._store()
        while tail.full:
            if not tail.kept:
                await tail.went.wait()
            elif self._away or not await self._store():
                tail.give_up_store()

    async def end(self) -> None:
        """Nothing more comes; returns once the store knows."""
        self.tail.end()
        for pause in LATER_SECONDS:
            await asyncio.sleep(pause)
            if not self.tail.kept or await self._store(State.ENDED):
                return

    async def tend(self) -> None:
        while not self._is_orphan():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rest()):
                    await self._stir.wait()
                await asyncio.sleep(BEHIND_SECONDS)
            self._stir.clear()
            if self.tail.kept:
                await self._store()

    async def _store(self, state: State = State.RUNNING) -> bool:
        """Stores what is not stored yet, and says that the stream is alive; False while the store is away."""
        tail = self.tail
        async with self._storing:
            until = tail.last
            while tail.kept:
                last, batch = tail.batch()
                over = state if last == tail.last else State.RUNNING
                try:
                    unread = await self._calls.append(self.name, self.by, last, batch, over)
                except StoreUnavailable:
                    self._away = True
                    return False
                except GatewayError:
                    log.exception("a stream cannot be kept")
                    unread = None
                self._away = False
                if unread is None:
                    tail.give_up_store()
                    break
                self._seen_at = max(self._seen_at, self._time() - unread)
                tail.has_stored(last)
                if last >= until:
                    break
        return True

    def _rest(self) -> float:
        """Seconds after which the store must hear of it, or somebody must look whether it is read."""
        alone = self._alone_at() - self._time()
        return min(self._calls.renew_seconds, max(alone, 0.01))

    def _is_orphan(self) -> bool:
        return self._time() >= self._alone_at()

    def _alone_at(self) -> float:
        """From when on nobody will have read it for too long."""
        if self._abandoned:
            return float("-inf")
        if self._readers:
            return float("inf")
        elsewhere = self._seen_at + max(SEEN_SECONDS, self._orphan_seconds)
        return max(self._left_at + self._orphan_seconds, elsewhere)

    # --- who reads it here --------------------------------------------------------------------------------------------

    async def begun(self) -> Start:
        """The first event. Raises the error that came instead of it."""
        return await asyncio.shield(self._head)

    @contextlib.contextmanager
    def attended(self) -> Iterator[None]:
        """Meanwhile somebody is there for it."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            self._left_at = self._time()
            self._stir.set()  # when to look again is another time now

    def abandon(self) -> None:
        """Nobody can come back to it: its client left without having been told its id."""
        self._abandoned = True
        self._stir.set()
