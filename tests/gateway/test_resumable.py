"""Without these a stream that can be resumed stalls or is cut with its store, is made for nobody, or ends unpaid."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from app.config.settings import Settings
from app.core.caller import ANONYMOUS, Caller
from app.core.errors import Broken, InternalError, NotFound, StoreUnavailable, StreamBroken, StreamExpired
from app.core.money import Tokens
from app.core.record import Record
from app.core.request import Request
from app.flags import Flags
from app.gateway import resumable
from app.gateway.exchange import refusal
from app.gateway.resumable import Bounds, Live, Status, Streams, beyond, name_of
from app.gateway.tail import BATCH_EVENTS
from app.store import layout
from app.store.client import Store
from app.store.streams import Gone, Page, State, StreamStore
from tests.api.wire import request
from tests.gateway.fakes import start
from tests.store.live import eventually

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


@pytest.fixture
def calls(store: Store) -> Calls:
    return Calls(store)


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


def record(request_id: str = "r", **more: Any) -> Record:
    return replace(refusal("chat", request_id, Broken("a fault"), 0.0, 1.0), **{"error_code": None, **more})


async def about(store: Store, live: Live) -> dict[bytes, bytes]:
    flat = await store.call("HGETALL", layout.key("stream-about", live.name))
    return dict(zip(flat[::2], flat[1::2], strict=True))


# --- which streams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "asked", "resumable"),
    [
        *(("opt-in", True, True), ("opt-in", None, False), ("opt-in", False, False)),
        *(("always", True, True), ("always", None, True), ("always", False, False)),
        *(("never", True, False), ("never", None, False)),
    ],
)
async def test_who_gets_one(calls: Calls, mode: str, asked: bool | None, resumable: bool) -> None:
    assert (await streams(calls, mode).open(ANONYMOUS, wanting(asked)) is not None) is resumable


async def test_who_does_not(calls: Calls) -> None:
    of = streams(calls)
    assert await of.open(ANONYMOUS, wanting(stream=False)) is None
    for kept_out in (Caller(store_content="off"), Caller(retention_days=0)):
        assert await of.open(kept_out, wanting()) is None, "content of this key may not be stored"
    off = replace(FLAGS, shares={**FLAGS.shares, "RESUMABLE_STREAMS": 0.0})
    assert await streams(calls, flags=off).open(ANONYMOUS, wanting()) is None


async def test_without_the_store_and_without_room_streams_are_ordinary(store: Store, calls: Calls) -> None:
    full = Calls(store, room_bytes=2_000)
    live = await opened(streams(full))
    await full.append(live.name, live.by, 1, b"x" * 848)
    assert await streams(full).open(ANONYMOUS, wanting()) is None
    calls.away = StoreUnavailable("away")
    assert await streams(calls).open(ANONYMOUS, wanting()) is None


async def test_a_stream_is_its_owners(calls: Calls) -> None:
    of, mine = streams(calls), Caller(key_id="k1")
    live = await opened(of, mine)
    live.tail.end()
    assert await all_of(await of.find(mine, live.id, 0)) == b""
    for other in (ANONYMOUS, Caller(key_id="k2")):
        with pytest.raises(NotFound):
            await of.find(other, live.id, 0)
    assert name_of(ANONYMOUS, "\ud800") != name_of(mine, "\ud800"), "an id may be anything"


# --- on the way to the store ----------------------------------------------------------------------------------------


async def test_it_is_never_more_than_a_batch_behind(calls: Calls) -> None:
    live = await opened(streams(calls))
    await grow(live, 3 * BATCH_EVENTS)
    assert live.tail.behind < BATCH_EVENTS and calls.appends == 3


async def test_nor_long(calls: Calls) -> None:
    live = await opened(streams(calls))
    async with tended(live):
        await grow(live, 2)
        await eventually(lambda: live.tail.behind == 0)
        page = await calls.read(live.name, 0)
        assert isinstance(page, Page) and page.batches == ((2, numbered(2)),)


async def test_it_says_that_it_is_alive_while_nothing_comes(store: Store) -> None:
    calls = Calls(store, lease_seconds=60)
    calls.renew_seconds = 0.02
    live = await opened(streams(calls))
    async with tended(live):
        await eventually(lambda: calls.appends > 5)
        page = await calls.read(live.name, 0)
        assert isinstance(page, Page) and page.state is State.RUNNING


async def test_a_store_that_is_away_for_a_moment_gets_all(calls: Calls) -> None:
    live = await opened(streams(calls))
    async with tended(live):
        calls.away = StoreUnavailable("away")
        await grow(live, BATCH_EVENTS + 1)
        asked = calls.appends
        await grow(live, 50, BATCH_EVENTS + 2)
        assert calls.appends == asked, "nobody waits for it again and again"
        calls.away = None
        await eventually(lambda: live.tail.behind == 0)
    assert await all_of_store(calls, live) == numbered(BATCH_EVENTS + 51)


async def all_of_store(calls: Calls, live: Live) -> bytes:
    whole, after = b"", 0
    while isinstance(page := await calls.read(live.name, after), Page) and page.batches:
        for last, batch in page.batches:
            whole += beyond(batch, after)
            after = last
    return whole


@pytest.mark.parametrize("why", [StoreUnavailable("away"), InternalError("refused")])
async def test_without_the_store_a_reader_sets_the_pace(calls: Calls, why: Exception) -> None:
    """The stream goes on for the client it has, within the bound."""
    of = streams(calls, buffer_bytes=500)
    live = await opened(of)
    events = of.read(live)
    await grow(live, 1)
    got = await anext(events)
    calls.away = why
    making = asyncio.create_task(grow(live, 300, 2))
    await asyncio.sleep(0.05)
    assert not making.done() and not live.tail.kept and live.tail.last < 300
    reading = asyncio.create_task(all_of(events))
    await asyncio.wait_for(making, 10)
    await live.end()
    assert got + await asyncio.wait_for(reading, 10) == numbered(301)
    with pytest.raises(StoreUnavailable if isinstance(why, StoreUnavailable) else InternalError):
        await of.find(ANONYMOUS, live.id, 0)


async def test_what_the_store_gave_up_goes_on_here(store: Store) -> None:
    calls = Calls(store, stream_bytes=2_000)
    of = streams(calls)
    live = await opened(of)
    reading = asyncio.create_task(all_of(of.read(live)))
    await grow(live, 2 * BATCH_EVENTS)
    await live.end()
    assert not live.tail.kept and await asyncio.wait_for(reading, 10) == numbered(2 * BATCH_EVENTS)
    with pytest.raises(StreamExpired):
        await of.find(ANONYMOUS, live.id, 0)


# --- for whom -------------------------------------------------------------------------------------------------------


async def test_nobody_reads_it(calls: Calls) -> None:
    live = await opened(streams(calls, orphan_seconds=0.05))
    await asyncio.wait_for(live.tend(), 10)


async def test_who_is_there_keeps_it_going_and_who_leaves_does_not(calls: Calls) -> None:
    live = await opened(streams(calls, orphan_seconds=0.05))
    async with tended(live) as tending:
        with live.attended():
            await asyncio.sleep(0.3)
            assert not tending.done()
        await asyncio.wait_for(tending, 10)


async def test_readers_elsewhere_count(calls: Calls) -> None:
    live = await opened(streams(calls, orphan_seconds=0.05))
    elsewhere = await streams(calls).find(ANONYMOUS, live.id, 0)
    async with tended(live) as tending:
        reading = asyncio.create_task(all_of(elsewhere))
        await asyncio.sleep(1.2 * resumable.SEEN_SECONDS)
        assert not tending.done()
        reading.cancel()
        await asyncio.wait_for(tending, 10)


async def test_one_that_is_abandoned_ends_at_once(calls: Calls) -> None:
    live = await opened(streams(calls))
    async with tended(live) as tending:
        with live.attended():
            await asyncio.sleep(0)
            live.abandon()
            await asyncio.wait_for(tending, 10)


async def test_its_beginning_is_told_once(calls: Calls) -> None:
    live = await opened(streams(calls))
    first = start()
    live.begin(first)
    live.begin(start())
    live.fail(Broken("too late to matter"))
    assert await live.begun() is first
    failed = await opened(streams(calls))
    failed.fail(Broken("at once"))
    with pytest.raises(Broken):
        await failed.begun()


# --- reading --------------------------------------------------------------------------------------------------------


async def test_read_here_and_elsewhere_it_is_the_same(calls: Calls) -> None:
    of, other = streams(calls, buffer_bytes=1_000), streams(calls)
    live = await opened(of)
    async with tended(live):
        readings = [
            asyncio.create_task(all_of(await where.find(ANONYMOUS, live.id, after)))
            for where in (of, other)
            for after in (0, 7)
        ]
        for first in range(1, 400, 20):
            await grow(live, 20, first)
            await asyncio.sleep(0.005)
        of.note(record())
        await of.close(live, Status.FINISHED)
        read = await asyncio.wait_for(asyncio.gather(*readings), 20)
    assert read == [numbered(400), numbered(393, 8)] * 2
    assert await all_of(await of.find(ANONYMOUS, live.id, 399)) == numbered(1, 400)


async def test_who_lags_behind_here_reads_from_the_store(calls: Calls) -> None:
    """So that a slow reader slows nobody, and loses nothing."""
    of = streams(calls, buffer_bytes=200)
    live = await opened(of)
    events = of.read(live)
    await grow(live, 1)
    got = await anext(events)
    await grow(live, 300, 2)
    assert live.tail.kept and calls.reads == 0
    ending = asyncio.create_task(live.end())
    assert got + await all_of(events) == numbered(301) and calls.reads > 0
    await ending


async def test_a_gateway_that_fell_silent(store: Store) -> None:
    calls = Calls(store, lease_seconds=0.2)
    live = await opened(streams(calls))
    await grow(live, BATCH_EVENTS)
    events, got = await streams(calls).find(ANONYMOUS, live.id, 0), b""
    with pytest.raises(StreamBroken):
        async for data in events:
            got += data
    assert got == numbered(BATCH_EVENTS)


async def test_a_store_that_is_away_is_waited_for_and_not_for_ever(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "RECONNECT_PAUSE", 0.01)
    live = await opened(streams(calls))
    await grow(live, BATCH_EVENTS)
    events = await streams(calls).find(ANONYMOUS, live.id, 0)
    assert await anext(events)
    calls.away = StoreUnavailable("away")
    reading = asyncio.create_task(anext(events))
    asked = calls.reads
    await eventually(lambda: calls.reads > asked + 2)
    calls.away = None
    await grow(live, BATCH_EVENTS, BATCH_EVENTS + 1)
    assert await asyncio.wait_for(reading, 10) == numbered(BATCH_EVENTS, BATCH_EVENTS + 1)
    calls.away = StoreUnavailable("away")
    monkeypatch.setattr(resumable, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(StoreUnavailable):
        await anext(events)


async def test_events_that_go_while_they_are_read(calls: Calls, store: Store) -> None:
    live = await opened(streams(calls))
    await grow(live, BATCH_EVENTS)
    events = await streams(calls).find(ANONYMOUS, live.id, 0)
    assert await anext(events)
    await store.call("DEL", layout.key("stream-chunks", live.name))
    with pytest.raises(StreamExpired):
        await anext(events)
    await store.call("DEL", layout.key("stream-about", live.name))
    with pytest.raises(StreamExpired):
        await anext(streams(calls)._read_stored(live.name, 0, Page(State.RUNNING, ())))


def test_a_batch_is_cut_where_its_reader_is() -> None:
    assert beyond(numbered(5), 0) == numbered(5) and beyond(numbered(5), 3) == numbered(2, 4)
    with pytest.raises(StreamExpired):
        beyond(numbered(5, 4), 2)


# --- what it came to ------------------------------------------------------------------------------------------------


async def test_what_it_came_to_is_told(calls: Calls, store: Store) -> None:
    of = streams(calls)
    live = await opened(of)
    of.note(record(request_id="another"))
    of.note(record(model="up/small", tokens=Tokens(3, 2), cost_nano=7, error_code="upstream_failed"))
    of.note(record())
    await of.close(live, Status.FAILED)
    assert await about(store, live) == {
        b"status": b"failed",
        b"model": b"up/small",
        b"code": b"upstream_failed",
        b"cost_nano": b"7",
        b"prompt_tokens": b"3",
        b"completion_tokens": b"2",
    }


async def test_a_record_that_never_comes_is_not_waited_for(
    calls: Calls, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "RECORD_SECONDS", 0.01)
    of = streams(calls)
    live = await opened(of)
    await of.close(live, Status.FINISHED)
    assert await about(store, live) == {b"status": b"finished"}
    of.note(record())


async def test_the_end_reaches_a_store_that_was_away(
    calls: Calls, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "LATER_SECONDS", (0.0, 0.01, 0.01))
    of = streams(calls)
    live, lost = await opened(of), await opened(of)
    await grow(live, 1)
    of.note(record())
    calls.away = StoreUnavailable("away")
    ending = asyncio.create_task(lost.end())
    await asyncio.wait_for(ending, 10)
    calls.away = None
    await live.end()
    assert await calls.read(live.name, 0) == Page(State.ENDED, ((1, numbered(1)),))
