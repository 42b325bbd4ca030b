"""Without these a stream that can be resumed is made for the wrong ones, read wrongly, or forgotten."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.errors import Broken, NotFound, StoreUnavailable, StreamBroken, StreamExpired
from app.core.money import Tokens
from app.core.record import Record
from app.gateway import resumable
from app.gateway.live import Live
from app.gateway.recording import refusal
from app.gateway.resumable import Status, beyond, name_of
from app.gateway.tail import BATCH_EVENTS
from app.store import layout
from app.store.client import Store
from app.store.streams import Page, State
from tests.gateway.streamed import FLAGS, Calls, all_of, grow, numbered, opened, streams, tended, wanting
from tests.store.live import eventually


@pytest.fixture
def calls(store: Store) -> Calls:
    return Calls(store)


def record(of: Live | None, **more: Any) -> Record:
    """What became of the request that made this stream."""
    told = {"error_code": None, "stream_id": None if of is None else of.id, **more}
    return replace(refusal("chat", "r", Broken("a fault"), 0.0, 1.0), **told)


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
        of.note(record(live))
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
    of.note(record(None))
    of.note(record(live, model="up/small", tokens=Tokens(3, 2), cost_nano=7, error_code="upstream_failed"))
    of.note(record(live))
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
    of.note(record(live))


async def test_streams_of_one_request_id_keep_their_own(calls: Calls, store: Store) -> None:
    """The id is the caller's choice; two at once with the same one must not be told of each other's answers."""
    of = streams(calls)
    first, second = await opened(of), await opened(of)
    of.note(record(second, model="up/second"))
    of.note(record(first, model="up/first"))
    await asyncio.gather(of.close(first, Status.FINISHED), of.close(second, Status.FINISHED))
    assert [(await about(store, live))[b"model"] for live in (first, second)] == [b"up/first", b"up/second"]
