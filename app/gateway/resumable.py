"""Streams that outlive their client: made once, kept in the store for minutes, read from any gateway by their owner.

`Live` is one that this gateway makes: events go into its tail at the upstream's pace, from there to the store in
batches, and to readers here. `Streams` finds streams for those who come back, wherever they are made. Who makes the
answer and what events look like is left to the edge.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.core.caller import Caller
from app.core.errors import GatewayError, NotFound, StoreUnavailable, StreamBroken, StreamExpired
from app.core.events import Start
from app.core.record import Record
from app.core.request import Request
from app.flags import Flags
from app.gateway.deciding import decided_flags
from app.gateway.tail import BATCH_EVENTS, Tail
from app.store.streams import Gone, Page, State, StreamStore

BEHIND_SECONDS: Final = 0.04
"""How long events wait for others to go to the store with; the call takes its time too."""
LATER_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""When to try again to tell the store of the end."""
RECORD_SECONDS: Final = 10.0
SEEN_SECONDS: Final = 2.0
"""For how long a reader elsewhere counts as there at least: it says so every now and then."""
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.25
PATIENCE_SECONDS: Final = 10.0
RECONNECT_PAUSE: Final = 0.25

UNKNOWN: Final = "There is no such stream of yours; what is known of one is kept for a day."

log = logging.getLogger("tierway.streams")


class Status(StrEnum):
    """How a stream ended, as is told once its events are gone."""

    FINISHED = "finished"
    FAILED = "failed"
    ORPHANED = "orphaned"


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


class Streams:
    """All streams of one gateway, and the way to all others. `mode`: `opt-in`, `always` or `never`."""

    def __init__(self, calls: StreamStore, flags: Callable[[], Flags], mode: str, bounds: Bounds) -> None:
        self._calls = calls
        self._flags = flags
        self._mode = mode
        self._bounds = bounds
        self._live: dict[str, Live] = {}
        self._unrecorded: dict[tuple[str | None, str], Live] = {}

    # --- making one ---------------------------------------------------------------------------------------------------

    async def open(self, caller: Caller, request: Request) -> Live | None:
        """A new stream for this request; None where it is not to be resumable, or cannot be."""
        if not self._wanted(caller, request):
            return None
        id = f"stream_{secrets.token_hex(16)}"
        live = Live(id, name_of(caller, id), self._calls, self._bounds)
        try:
            if not await self._calls.open(live.name, live.by):
                return None
        except StoreUnavailable:
            return None
        self._live[live.name] = live
        self._unrecorded[caller.key_id, request.id] = live
        return live

    def _wanted(self, caller: Caller, request: Request) -> bool:
        asked = request.terms.resumable
        wanted = asked is not False if self._mode == "always" else asked is True and self._mode == "opt-in"
        kept = caller.store_content != "off" and caller.retention_days != 0
        return wanted and request.stream and kept and decided_flags(self._flags, request, caller)["RESUMABLE_STREAMS"]

    def note(self, record: Record) -> None:
        """A reader of finished requests: what a stream came to is told of it for a day."""
        live = self._unrecorded.pop((record.key_id, record.request_id), None)
        if live is not None and not live.record.done():
            live.record.set_result(record)

    async def close(self, live: Live, status: Status) -> None:
        """To be called once its answer is settled, or about to be."""
        try:
            await live.end()
        finally:
            del self._live[live.name]
        record = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECORD_SECONDS):
                record = await live.record
        for waiting in [asked for asked, other in self._unrecorded.items() if other is live]:
            del self._unrecorded[waiting]
        with contextlib.suppress(StoreUnavailable):
            await self._calls.tell(live.name, {"status": status, **_told(record)})

    # --- reading one --------------------------------------------------------------------------------------------------

    async def find(self, caller: Caller, id: str, after: int) -> AsyncGenerator[bytes, None]:
        """The events after that one. Raises `NotFound`, `StreamExpired`, `StoreUnavailable`; so does what it gives,
        and `StreamBroken`, once it has begun."""
        name = name_of(caller, id)
        live = self._live.get(name)
        if live is not None and live.tail.kept:
            return self.read(live, after)
        page = await self._calls.read(name, after)
        if page is None:
            raise NotFound(UNKNOWN, param="stream_id")
        if isinstance(page, Gone):
            raise _expired(page.about)
        return self._read_stored(name, after, page)

    async def read(self, live: Live, after: int = 0) -> AsyncGenerator[bytes, None]:
        """The events of a stream that is made here: from its tail, or from the store for a reader who lags behind."""
        tail = live.tail
        with live.attended(), tail.reading(after) as place:
            while True:
                data = tail.take(place)
                if data is None:
                    for last, batch in (await self._page(live.name, place.after)).batches:
                        data = beyond(batch, place.after)
                        place.after = last
                        yield data
                elif data:
                    yield data
                elif tail.over:
                    return
                else:
                    await tail.came.wait()

    async def _read_stored(self, name: str, after: int, page: Page) -> AsyncGenerator[bytes, None]:
        pause = FIRST_PAUSE
        while True:
            for last, batch in page.batches:
                yield beyond(batch, after)
                after = last
            if page.batches:
                pause = FIRST_PAUSE
            elif page.state is State.RUNNING:
                pause = min(1.5 * pause, LONGEST_PAUSE)
            elif page.state is State.ENDED:
                return
            else:
                raise StreamBroken("The gateway that made this stream is gone, and the stream with it.")
            if page.state is State.RUNNING:
                await asyncio.sleep(pause)
            page = await self._page(name, after)

    async def _page(self, name: str, after: int) -> Page:
        """The next page; a store that is away is waited for, for a while."""
        time = asyncio.get_running_loop().time
        give_up = time() + PATIENCE_SECONDS
        while True:
            try:
                page = await self._calls.read(name, after)
            except StoreUnavailable:
                if time() >= give_up:
                    raise
                await asyncio.sleep(RECONNECT_PAUSE)
                continue
            if isinstance(page, Page):
                return page
            raise _expired({} if page is None else page.about)


def name_of(caller: Caller, id: str) -> str:
    """What a caller's stream is called in the store, where nobody else can even ask for it."""
    owner = f"{caller.key_id or ''}\n{id}".encode(errors="surrogatepass")
    return hashlib.blake2b(owner, digest_size=16).hexdigest()


def beyond(batch: bytes, after: int) -> bytes:
    """The events of a batch that come after that one, which is before its last. Raises `StreamExpired` at a gap."""
    first = int(batch[4 : batch.index(b"\n")])
    if first > after + 1:
        raise _expired({})
    if first == after + 1:
        return batch
    return batch[batch.index(b"\n\nid: %d\n" % (after + 1)) + 2 :]


def _told(record: Record | None) -> dict[str, str | int]:
    if record is None:
        return {}
    known: dict[str, str | int | None] = {
        "model": record.model,
        "code": record.error_code,
        "cost_nano": record.cost_nano,
        "prompt_tokens": None if record.tokens is None else record.tokens.prompt,
        "completion_tokens": None if record.tokens is None else record.tokens.completion,
    }
    return {name: value for name, value in known.items() if value is not None}


def _expired(about: Mapping[str, str]) -> StreamExpired:
    return StreamExpired("The events of this stream are gone; what it came to is told for a day.", about=about)
