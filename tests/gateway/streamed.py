"""Streams that can be resumed, over a store that can be away, for those who test them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any

from app.config.settings import Settings
from app.core.caller import ANONYMOUS, Caller
from app.core.request import Request
from app.flags import Flags
from app.gateway.live import Bounds, Live
from app.gateway.resumable import Streams, beyond
from app.store.streams import Gone, Page, StreamStore
from tests.api.wire import request

FLAGS = Flags.start(Settings().flags)


class Calls(StreamStore):
    """The store of streams, which can be away, refuse, or have no room; and how often it was asked for what."""

    away: Exception | None = None
    appends = reads = 0

    async def open(self, name: str, by: str) -> bool:
        if self.away is not None:
            raise self.away
        return await super().open(name, by)

    async def append(self, *args: Any, **more: Any) -> float | None:
        self.appends += 1
        if self.away is not None:
            raise self.away
        return await super().append(*args, **more)

    async def read(self, name: str, after: int) -> Page | Gone | None:
        self.reads += 1
        if self.away is not None:
            raise self.away
        return await super().read(name, after)

    async def tell(self, *args: Any, **more: Any) -> None:
        if self.away is not None:
            raise self.away
        await super().tell(*args, **more)


def streams(calls: Calls, mode: str = "opt-in", flags: Flags = FLAGS, **bounds: Any) -> Streams:
    return Streams(calls, lambda: flags, mode, Bounds(**bounds))


def wanting(resumable: bool | None = True, stream: bool = True) -> Request:
    asked = request(stream=stream)
    return replace(asked, terms=replace(asked.terms, resumable=resumable, flags={}))


async def opened(of: Streams, caller: Caller = ANONYMOUS) -> Live:
    live = await of.open(caller, wanting())
    assert live is not None
    return live


def event(text: Any) -> bytes:
    return b"data: %b\n\n" % str(text).encode()


def numbered(count: int, first: int = 1) -> bytes:
    return b"".join(b"id: %d\n" % number + event(number) for number in range(first, first + count))


async def grow(live: Live, count: int, first: int = 1) -> None:
    for number in range(first, first + count):
        await live.add(event(number))


@contextlib.asynccontextmanager
async def tended(live: Live) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(live.tend())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def all_of(events: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([data async for data in events])


async def all_of_store(calls: Calls, live: Live) -> bytes:
    whole, after = b"", 0
    while isinstance(page := await calls.read(live.name, after), Page) and page.batches:
        for last, batch in page.batches:
            whole += beyond(batch, after)
            after = last
    return whole
