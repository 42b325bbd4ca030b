"""A model that only drips must not hold its caller: by the clock of a loop that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, TypeVar

import pytest

from app.core.events import Event, Finish, Reasoning, Start, Text, ToolCall, Usage
from app.core.money import Tokens
from app.gateway.pace import HELD_BYTES, HELD_TOKENS, Starved, paced, tokens_of

T = TypeVar("T")
START = Start("id", "m", 0, "chat")
END: list[Event] = [Finish("stop"), Usage(Tokens(1, 2))]


class Moved(asyncio.SelectorEventLoop):
    """Its time passes at once: it jumps to whatever is due next."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        scheduled: Sequence[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        due = [handle.when() for handle in scheduled if not handle.cancelled()]
        if not self._ready and due:  # type: ignore[attr-defined]
            self._now = max(self._now, min(due))
        super()._run_once()  # type: ignore[misc]


@pytest.fixture
def timed() -> Callable[[Any], Any]:
    def run(body: Any) -> Any:
        loop = Moved()
        try:
            return loop.run_until_complete(body)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    return run


class Source:
    """Events with the seconds that are waited for each."""

    def __init__(self, *steps: tuple[float, Event]) -> None:
        self.steps = steps
        self.closed = False

    async def play(self) -> AsyncGenerator[Event, None]:
        try:
            for seconds, event in self.steps:
                await asyncio.sleep(seconds)
                yield event
        finally:
            self.closed = True


def words(count: int, seconds: float) -> list[tuple[float, Event]]:
    return [(seconds, Text(f"w{number}")) for number in range(count)]


def at_once(*events: Event) -> list[tuple[float, Event]]:
    return [(0.0, event) for event in events]


async def seen(source: Source, least: float, reads: float = 0.0) -> tuple[list[Event], bool]:
    """What came out, and whether it starved; the reader takes so many seconds for each."""
    out: list[Event] = []
    try:
        async with contextlib.aclosing(paced(source.play(), least)) as events:
            async for event in events:
                out.append(event)
                await asyncio.sleep(reads)
    except Starved:
        return out, True
    return out, False


def test_a_good_pace_changes_nothing(timed: Callable[[Any], Any]) -> None:
    source = Source((30.0, START), *words(100, 0.05), *at_once(*END))
    out, starved = timed(seen(source, 10.0))
    assert not starved and out == [event for _, event in source.steps] and source.closed


def test_who_starves_at_once_is_given_up_before_a_word_of_it_is_released(timed: Callable[[Any], Any]) -> None:
    """So that another model can answer, with nobody the wiser."""
    source = Source((0.0, START), *words(HELD_TOKENS - 1, 0.3), *words(1, 0.0), *at_once(*END))
    out, starved = timed(seen(source, 10.0))
    assert starved and out == [START] and source.closed


def test_the_wait_for_the_first_word_is_another_clocks(timed: Callable[[Any], Any]) -> None:
    source = Source((0.0, START), (1_000.0, Text("at last")), *words(20, 0.01), *at_once(*END))
    assert timed(seen(source, 10.0))[1] is False


def test_what_is_released_and_starves_later_is_an_error(timed: Callable[[Any], Any]) -> None:
    source = Source((0.0, START), *words(50, 0.05), *words(50, 1.0))
    out, starved = timed(seen(source, 10.0))
    assert starved and HELD_TOKENS < len(out) < 80


def test_a_server_that_falls_silent_is_noticed_without_another_word(timed: Callable[[Any], Any]) -> None:
    source = Source((0.0, START), *words(50, 0.05), (1_000_000.0, Text("late")))
    out, starved = timed(seen(source, 10.0))
    assert starved and len(out) == 51


def test_a_short_answer_is_released_at_its_end(timed: Callable[[Any], Any]) -> None:
    source = Source((0.0, START), *words(3, 0.1), *at_once(*END))
    out, starved = timed(seen(source, 10.0))
    assert not starved and len(out) == 6


def test_usage_may_take_its_time(timed: Callable[[Any], Any]) -> None:
    """The answer is whole by then."""
    source = Source((0.0, START), *words(3, 0.1), (0.0, END[0]), (100.0, END[1]))
    assert timed(seen(source, 10.0)) == ([event for _, event in source.steps], False)


def test_a_moment_without_a_word_is_no_starving(timed: Callable[[Any], Any]) -> None:
    source = Source((0.0, START), *words(40, 0.01), (0.9, Text("and")), *words(200, 0.01), *at_once(*END))
    assert timed(seen(source, 50.0))[1] is False


def test_a_client_that_reads_slowly_starves_nobody(timed: Callable[[Any], Any]) -> None:
    source = Source((0.0, START), *words(100, 0.01), *at_once(*END))
    out, starved = timed(seen(source, 10.0, reads=5.0))
    assert not starved and len(out) == 103


def test_what_is_held_back_is_bounded(timed: Callable[[Any], Any]) -> None:
    """One word of a megabyte is not kept until fifteen more have come."""
    source = Source((0.0, START), (0.0, Text("x" * HELD_BYTES)), (1_000_000.0, Text("late")))
    out, starved = timed(seen(source, 10.0))
    assert starved and len(out) == 2


def test_an_answer_that_just_ends_loses_nothing(timed: Callable[[Any], Any]) -> None:
    """Whoever walks the plan says what is wrong with it."""
    source = Source((0.0, START), *words(3, 0.0))
    assert timed(seen(source, 10.0)) == ([event for _, event in source.steps], False)


@pytest.mark.parametrize(
    ("event", "tokens"),
    [(START, 0), (Text("a"), 1), (Text("x" * 40), 10), (Reasoning("hm"), 1), (ToolCall(0, "{}" * 4), 2), (END[0], 0)],
)
def test_pieces_count_as_what_they_hold(event: Event, tokens: int) -> None:
    """Servers that send several tokens at a time are not slow."""
    assert tokens_of(event) == tokens


def test_pieces_that_came_as_one_count_each() -> None:
    """Or a model of short words would seem slow whenever several came at once."""
    assert tokens_of(Text("I am", pieces=3)) == 3
