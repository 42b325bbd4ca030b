"""Without these a resumed stream lacks events or repeats them, waits for a gateway that is dead, or fills the store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.store import layout
from app.store.client import Store
from app.store.streams import BATCHES, Gone, Lives, Page, State, StreamStore
from tests.store.live import eventually

NAME, BY = "a1", "gateway-1"


@pytest.fixture
def streams(store: Store) -> StreamStore:
    return StreamStore(store)


async def sizes(store: Store) -> dict[str, int]:
    flat = await store.call("HGETALL", layout.STREAMS_BYTES)
    return {name.decode(): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


async def test_what_was_added_is_read_from_any_event_on(streams: StreamStore) -> None:
    assert await streams.open(NAME, BY)
    assert await streams.read(NAME, 0) == Page(State.RUNNING, ())
    await streams.append(NAME, BY, 3, b"one two three")
    await streams.append(NAME, BY, 4, b"four")
    whole = Page(State.RUNNING, ((3, b"one two three"), (4, b"four")))
    assert await streams.read(NAME, 0) == await streams.read(NAME, 2) == whole
    assert await streams.read(NAME, 3) == Page(State.RUNNING, ((4, b"four"),))
    await streams.append(NAME, BY, 5, b"five", State.ENDED)
    assert await streams.read(NAME, 4) == Page(State.ENDED, ((5, b"five"),))
    assert await streams.read(NAME, 5) == await streams.read(NAME, 99) == Page(State.ENDED, ())


async def test_a_batch_that_is_sent_twice_is_kept_once(streams: StreamStore, store: Store) -> None:
    await streams.open(NAME, BY)
    for _ in range(2):
        assert await streams.append(NAME, BY, 1, b"one") is not None
    before = await sizes(store)
    for _ in range(2):
        assert await streams.append(NAME, BY, 2, b"two", State.ENDED) is not None
    assert await streams.read(NAME, 0) == Page(State.ENDED, ((1, b"one"), (2, b"two")))
    assert (await sizes(store))[NAME] == before[NAME] + 3 + 128
    assert await streams.append(NAME, BY, 3, b"three") is None, "what is over stays as it is"


async def test_long_streams_are_read_in_pages(streams: StreamStore) -> None:
    await streams.open(NAME, BY)
    for number in range(1, BATCHES + 3):
        await streams.append(NAME, BY, number, b"%d" % number)
    page = await streams.read(NAME, 0)
    assert isinstance(page, Page) and [last for last, _ in page.batches] == list(range(1, BATCHES + 1))


async def test_one_that_never_was_and_another_maker(streams: StreamStore) -> None:
    assert await streams.read("never", 0) is None
    assert await streams.append("never", BY, 1, b"one") is None
    await streams.open(NAME, BY)
    assert await streams.append(NAME, "another", 1, b"one") is None


async def test_a_silent_maker_broke_its_stream_for_good(store: Store) -> None:
    """A gateway that was killed must not be waited for; one that only slept must not go on where others gave up."""
    streams = StreamStore(store, lease_seconds=0.05)
    assert streams.renew_seconds < 0.05
    await streams.open(NAME, BY)
    await streams.append(NAME, BY, 1, b"one")

    async def broken() -> bool:
        return await streams.read(NAME, 0) == Page(State.BROKEN, ((1, b"one"),))

    await eventually(broken)
    assert await streams.append(NAME, BY, 2, b"two") is None
    await store.call("DEL", layout.key("stream-chunks", NAME))
    assert await streams.read(NAME, 0) == Gone({"status": "broken"})


async def test_a_stream_that_outlived_what_was_known_of_it_was_broken(streams: StreamStore, store: Store) -> None:
    await streams.open(NAME, BY)
    await streams.tell(NAME, {"model": "up/small"})
    await store.call("DEL", layout.key("stream", NAME))
    assert await streams.read(NAME, 0) == Gone({"status": "broken", "model": "up/small"})


async def test_saying_so_keeps_it_alive(store: Store) -> None:
    streams = StreamStore(store, lease_seconds=60)
    await streams.open(NAME, BY)
    assert await streams.append(NAME, BY) == float("inf"), "nobody read it"
    await streams.read(NAME, 0)
    assert await streams.append(NAME, BY) != float("inf")
    assert await store.call("EXISTS", layout.key("stream-chunks", NAME)) == 0
    assert await sizes(store) == {}


async def test_readers_are_noted_while_it_runs(streams: StreamStore, store: Store) -> None:
    await streams.open(NAME, BY)
    await streams.append(NAME, BY, 1, b"one", State.ENDED)
    await streams.read(NAME, 0)
    assert await store.call("HGET", layout.key("stream", NAME), "read") is None


async def test_after_their_time_the_events_are_gone_and_what_is_told_stays(store: Store) -> None:
    streams = StreamStore(store, lives=Lives(chunks=1))
    await streams.open(NAME, BY)
    await streams.append(NAME, BY, 1, b"one", State.ENDED)
    await streams.tell(NAME, {"status": "ended", "cost_nano": 5})

    async def gone() -> bool:
        return await streams.read(NAME, 0) == Gone({"status": "ended", "cost_nano": "5"})

    await eventually(gone)
    # What is gone leaves the sum with the next event of anybody.
    await streams.open("b2", BY)
    await streams.append("b2", BY, 1, b"one")
    assert (await sizes(store)).keys() == {"#", "b2"}


async def test_what_would_follow_a_gap_is_not_kept(streams: StreamStore, store: Store) -> None:
    await streams.open(NAME, BY)
    await streams.append(NAME, BY, 1, b"one")
    await store.call("DEL", layout.key("stream-chunks", NAME))
    assert await streams.append(NAME, BY, 2, b"two") is None
    assert isinstance(await streams.read(NAME, 1), Gone)
    assert (await sizes(store)) == {"#": 0}


async def test_no_stream_is_larger_than_allowed(store: Store) -> None:
    streams = StreamStore(store, stream_bytes=4_000)
    await streams.open(NAME, BY)
    assert await streams.append(NAME, BY, 1, b"x" * 1_000) is not None
    assert await streams.append(NAME, BY, 2, b"x" * 2_000) is None
    assert isinstance(await streams.read(NAME, 0), Gone)
    assert await store.call("EXISTS", layout.key("stream-chunks", NAME)) == 0 and await sizes(store) == {"#": 0}


async def test_all_together_take_their_room_and_those_go_first_that_are_over(store: Store) -> None:
    streams = StreamStore(store, room_bytes=10_000)
    for name in ("old", "live"):
        await streams.open(name, BY)
    await streams.append("old", BY, 1, b"x" * 3_000, State.ENDED)
    await asyncio.sleep(0.002)
    await streams.append("live", BY, 1, b"x" * 3_000)
    await asyncio.sleep(0.002)
    await streams.open("new", BY)
    await streams.append("new", BY, 1, b"x" * 3_000)
    assert isinstance(await streams.read("old", 0), Gone)
    assert isinstance(await streams.read("live", 0), Page) and isinstance(await streams.read("new", 0), Page)
    assert (await sizes(store))["#"] <= 10_000
    assert await streams.append("live", BY, 2, b"x" * 3_000) is not None
    assert isinstance(await streams.read("new", 0), Gone)
    assert await streams.append("new", BY, 2, b"x") is None, "and it is told"


async def test_where_all_room_is_taken_by_what_runs_nobody_new_comes(store: Store) -> None:
    streams = StreamStore(store, room_bytes=5_000, lives=Lives(chunks=60), lease_seconds=10)
    await streams.open(NAME, BY)
    await streams.append(NAME, BY, 1, b"x" * 3_848)
    assert not await streams.open("b2", BY)
    assert await store.call("EXISTS", layout.key("stream", "b2")) == 0
    later = StreamStore(store, room_bytes=5_000, lives=Lives(chunks=120), lease_seconds=10)
    assert await later.open("b2", BY), "the first to expire is over: it will make room"


async def test_every_key_is_of_a_partition(streams: StreamStore, store: Store, valkey: Path) -> None:
    await streams.open(NAME, BY)
    await streams.append(NAME, BY, 1, b"one")
    for key in await store.call("KEYS", "*"):
        assert layout.fault_of(key.decode(), await store.call("TTL", key)) is None
    assert {key.decode() for key in await store.call("KEYS", "*stream*")} == {
        layout.STREAMS,
        layout.STREAMS_BYTES,
        *(layout.key(partition, NAME) for partition in ("stream", "stream-chunks", "stream-about")),
    }
