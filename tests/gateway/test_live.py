"""Without these a stream that can be resumed stalls or is cut with its store, or is made for nobody."""

from __future__ import annotations

import asyncio

import pytest

from app.core.caller import ANONYMOUS
from app.core.errors import Broken, InternalError, StoreUnavailable, StreamExpired
from app.gateway import live as living
from app.gateway.tail import BATCH_EVENTS
from app.store.client import Store
from app.store.streams import Page, State
from tests.gateway.fakes import start
from tests.gateway.streamed import Calls, all_of, all_of_store, grow, numbered, opened, streams, tended
from tests.store.live import eventually


@pytest.fixture
def calls(store: Store) -> Calls:
    return Calls(store)


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
        await asyncio.sleep(1.2 * living.SEEN_SECONDS)
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


# --- its end --------------------------------------------------------------------------------------------------------


async def test_the_end_reaches_a_store_that_was_away(
    calls: Calls, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living, "LATER_SECONDS", (0.0, 0.01, 0.01))
    of = streams(calls)
    live, lost = await opened(of), await opened(of)
    await grow(live, 1)
    calls.away = StoreUnavailable("away")
    ending = asyncio.create_task(lost.end())
    await asyncio.wait_for(ending, 10)
    calls.away = None
    await live.end()
    assert await calls.read(live.name, 0) == Page(State.ENDED, ((1, numbered(1)),))
