"""Without these a stream that can be resumed holds too much, or loses or repeats events on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.tail import BATCH_BYTES, BATCH_EVENTS, Tail


def event(text: str) -> bytes:
    return b"data: " + text.encode() + b"\n\n"


def numbered(*texts: str, first: int = 1) -> bytes:
    return b"".join(b"id: %d\n" % number + event(text) for number, text in enumerate(texts, first))


def filled(*texts: str, most: int = 1_000_000) -> Tail:
    tail = Tail(most)
    for text in texts:
        tail.add(event(text))
    return tail


def states(tail: Tail) -> tuple[bool, int]:
    return tail.full, tail.behind


def test_each_event_has_its_number() -> None:
    tail = Tail(1_000)
    tail.add(event("a"))
    tail.add(event("b") + event("c"))
    with tail.reading(0) as place:
        assert tail.take(place) == numbered("a", "b", "c")
        assert tail.take(place) == b"" and place.after == tail.last == 3


def test_a_reader_begins_where_it_wants() -> None:
    tail = filled("a", "b", "c")
    with tail.reading(2) as place:
        assert tail.take(place) == numbered("c", first=3)
    with tail.reading(9) as ahead:
        assert tail.take(ahead) == b""


def test_batches_are_bounded_and_follow_each_other() -> None:
    tail = filled(*map(str, range(BATCH_EVENTS + 2)))
    last, batch = tail.batch()
    assert last == BATCH_EVENTS and tail.behind == BATCH_EVENTS + 2
    tail.has_stored(last)
    assert tail.batch() == (BATCH_EVENTS + 2, numbered("64", "65", first=65)) and batch.startswith(numbered("0", "1"))
    large = filled("x" * BATCH_BYTES, "y")
    assert large.batch()[0] == 1, "at least one"
    assert filled("y", "x" * BATCH_BYTES).batch()[0] == 1


def test_what_is_stored_and_read_leaves() -> None:
    tail = filled("a", "b")
    with tail.reading(0) as place:
        tail.has_stored(2)
        assert tail.take(place) == numbered("a", "b"), "the bound was not reached: it waits for its reader"
    with tail.reading(0) as late:
        assert tail.take(late) is None


def test_without_readers_nothing_is_held_that_is_stored() -> None:
    tail = filled("a", "b")
    tail.has_stored(1)
    with tail.reading(0) as place:
        assert tail.take(place) is None
    with tail.reading(1) as place:
        assert tail.take(place) == numbered("b", first=2)


def test_at_the_bound_a_slow_reader_is_sent_to_the_store() -> None:
    tail = filled("a" * 100, "b" * 100, most=150)
    with tail.reading(0) as place:
        assert states(tail) == (True, 2)
        tail.has_stored(1)
        assert states(tail) == (False, 1) and tail.take(place) is None


def test_without_the_store_readers_alone_make_room() -> None:
    tail = filled("a" * 100, "b" * 100, most=150)
    with tail.reading(0) as place:
        tail.give_up_store()
        assert states(tail) == (True, 0)
        assert tail.take(place) == numbered("a" * 100, "b" * 100)
        assert states(tail) == (False, 0)
    tail.add(event("c"))
    with tail.reading(2) as place:
        assert tail.take(place) == numbered("c", first=3)


async def test_who_waits_is_woken() -> None:
    tail = Tail(10)

    async def waits(pulse: asyncio.Event) -> None:
        await pulse.wait()

    steps: list[tuple[asyncio.Event, Callable[[], None]]] = [
        (tail.came, lambda: tail.add(event("a"))),
        (tail.went, lambda: tail.has_stored(1)),
        (tail.came, tail.give_up_store),
        (tail.came, tail.end),
    ]
    for pulse, happens in steps:
        waiting = asyncio.create_task(waits(pulse))
        await asyncio.sleep(0)
        happens()
        await asyncio.wait_for(waiting, 2)
    assert tail.over


def test_for_a_reader_that_fails_nothing_is_held_any_more() -> None:
    tail = filled("a")
    with pytest.raises(ZeroDivisionError), tail.reading(0):
        tail.has_stored(1)
        raise ZeroDivisionError
    with tail.reading(0) as place:
        assert tail.take(place) is None


@given(st.lists(st.sampled_from(["add", "store", "take"]), max_size=60), st.integers(20, 400))
def test_in_any_order_a_reader_gets_every_event_once(steps: list[str], most: int) -> None:
    """From here or from the store, of which this is the whole."""
    tail, kept, got = Tail(most), b"", b""
    with tail.reading(0) as place:
        for number, step in enumerate([*steps, "store", "take", "take"]):
            if step == "add":
                tail.add(event(f"{number}"))
            elif step == "store":
                last, batch = tail.batch()
                kept += batch
                tail.has_stored(last)
            elif (data := tail.take(place)) is None:
                start = kept.index(b"id: %d\n" % (place.after + 1))
                got += kept[start:]
                place.after = tail.stored
            else:
                got += data
    ids = [int(line[4:]) for line in got.split(b"\n") if line.startswith(b"id: ")]
    assert len(ids) == tail.last and all(after == before + 1 for before, after in pairwise(ids))
