"""Streams that outlive their client: made once, kept in the store for minutes, read from any gateway by their owner.

`Streams` opens them, and finds them for those who come back, wherever they are made. How one that is made here lives is
`live`'s story; who makes the answer and what events look like is left to the edge.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from enum import StrEnum
from typing import Final

from app.core.caller import Caller
from app.core.errors import NotFound, StoreUnavailable, StreamBroken, StreamExpired
from app.core.record import Record
from app.core.request import Request
from app.flags import Flags
from app.gateway.deciding import decided_flags
from app.gateway.live import Bounds, Live
from app.store.streams import Gone, Page, State, StreamStore

RECORD_SECONDS: Final = 10.0
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.25
PATIENCE_SECONDS: Final = 10.0
RECONNECT_PAUSE: Final = 0.25

UNKNOWN: Final = "There is no such stream of yours; what is known of one is kept for a day."


class Status(StrEnum):
    """How a stream ended, as is told once its events are gone."""

    FINISHED = "finished"
    FAILED = "failed"
    ORPHANED = "orphaned"


class Streams:
    """All streams of one gateway, and the way to all others. `mode`: `opt-in`, `always` or `never`."""

    def __init__(self, calls: StreamStore, flags: Callable[[], Flags], mode: str, bounds: Bounds) -> None:
        self._calls = calls
        self._flags = flags
        self._mode = mode
        self._bounds = bounds
        self._live: dict[str, Live] = {}
        self._unrecorded: dict[str, Live] = {}

    # --- making one ---------------------------------------------------------------------------------------------------

    async def open(self, caller: Caller, request: Request) -> Live | None:
        """A new stream for this request, whose terms are to name it from then on; None where it is not to be
        resumable, or cannot be."""
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
        self._unrecorded[id] = live
        return live

    def _wanted(self, caller: Caller, request: Request) -> bool:
        asked = request.terms.resumable
        wanted = asked is not False if self._mode == "always" else asked is True and self._mode == "opt-in"
        kept = caller.store_content != "off" and caller.retention_days != 0
        return wanted and request.stream and kept and decided_flags(self._flags, request, caller)["RESUMABLE_STREAMS"]

    def note(self, record: Record) -> None:
        """A reader of finished requests: what a stream came to is told of it for a day."""
        live = None if record.stream_id is None else self._unrecorded.pop(record.stream_id, None)
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
        self._unrecorded.pop(live.id, None)
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
