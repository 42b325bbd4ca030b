"""A gate that leaks a seat starves its upstream for good; one that lets too many through is none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.clock import ManualClock
from app.core.errors import Broken, Busy, GatewayError, OutOfTime, Rejected, Shed, Throttled, TimedOut
from app.upstreams import gate as gates
from app.upstreams.gate import Gate
from app.upstreams.limit import REFUSED, Limit

LONG = 60.0


class Rig:
    """A gate, and who came in through it by their names."""

    def __init__(self, seats: int, most: int | None = None) -> None:
        self.clock = ManualClock()
        self.told: list[tuple[int, int]] = []
        self.gate = Gate("gpu", Limit(seats, most or seats), self.clock, lambda _, *said: self.told.append(said))
        self.inside: list[str] = []
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, rank: int = 0, seconds: float = LONG) -> None:
        self.tasks[name] = asyncio.get_running_loop().create_task(self._come(name, rank, seconds))
        await asyncio.sleep(0)

    async def _come(self, name: str, rank: int, seconds: float) -> None:
        try:
            if not self.gate.enter():
                await self.gate.wait(rank, seconds)
        except Shed:
            self.refused.append(name)
        else:
            self.inside.append(name)

    async def go(self, seconds: float = 1.0, error: GatewayError | None = None) -> None:
        self.gate.ended(seconds, error)
        await settled()

    async def gone(self, name: str) -> None:
        self.tasks[name].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.tasks[name]


async def settled() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def full(seats: int = 1) -> AsyncIterator[Rig]:
    """All seats are taken. Whoever still waits at the end is sent away."""
    rig = Rig(seats)
    assert all(rig.gate.enter() for _ in range(seats))
    try:
        yield rig
    finally:
        for task in rig.tasks.values():
            task.cancel()
        await asyncio.gather(*rig.tasks.values(), return_exceptions=True)


async def test_so_many_and_no_more() -> None:
    async with full(2) as rig:
        assert not rig.gate.enter() and rig.gate.taken == 2
        rig.gate.leave()
        assert rig.gate.enter() and not rig.gate.enter()


async def test_a_free_seat_goes_to_the_first_in_line() -> None:
    async with full() as rig:
        for name in "abc":
            await rig.come(name)
        assert rig.gate.waiting == 3
        await rig.go()
        assert rig.inside == ["a"] and (rig.gate.taken, rig.gate.waiting) == (1, 2)
        assert not rig.gate.enter(), "nobody overtakes"
        await rig.go()
        await rig.go()
        assert rig.inside == ["a", "b", "c"]


async def test_the_urgent_stand_first() -> None:
    """A batch of a thousand must not make a person wait, nor a shadow a batch."""
    async with full() as rig:
        for name, rank in (("shadow", 2), ("batch", 1), ("person", 0), ("another", 0)):
            await rig.come(name, rank)
        for _ in range(4):
            await rig.go()
        assert rig.inside == ["person", "another", "batch", "shadow"]


async def test_who_waited_long_enough_is_told_when_to_come_again() -> None:
    async with full() as rig:
        rig.gate.ended(0.0, None)
        assert rig.gate.enter()
        with pytest.raises(Shed) as raised:
            await rig.gate.wait(0, 0.01)
        assert raised.value.cause == "upstream" and (raised.value.retry_after or 0) >= 1
        assert (rig.gate.taken, rig.gate.waiting) == (1, 0)


async def test_who_may_not_wait_is_told_at_once() -> None:
    async with full() as rig:
        await rig.come("late", seconds=0.0)
        await settled()
        assert rig.refused == ["late"] and rig.gate.waiting == 0


async def test_who_would_wait_in_vain_is_told_at_once() -> None:
    """The line is as long as thirty seconds already: the next would stand there for nothing."""
    async with full() as rig:
        await rig.go(seconds=10.0)
        assert rig.gate.enter()
        for name in ("a", "b", "c"):
            await rig.come(name, seconds=25.0)
        assert rig.refused == ["c"] and rig.gate.waiting == 2
        with pytest.raises(Shed) as raised:
            await rig.gate.wait(1, 25.0)
        assert raised.value.retry_after == pytest.approx(30.0)
        await rig.come("urgent", rank=0, seconds=31.0)
        assert "urgent" not in rig.refused


async def test_where_there_may_soon_be_more_nobody_is_sent_away() -> None:
    rig = Rig(1, most=100)
    assert rig.gate.enter()
    rig.gate.ended(600.0, Broken("reset"))
    assert rig.gate.enter()
    await rig.come("a", seconds=5.0)
    rig.gate.first_token("gpu/a", 0.1)
    await settled()
    assert rig.inside == ["a"]


async def test_who_leaves_the_line_frees_his_place() -> None:
    async with full() as rig:
        for name in "abc":
            await rig.come(name)
        await rig.gone("a")
        assert rig.gate.waiting == 2
        await rig.go()
        assert rig.inside == ["b"]


async def test_who_leaves_as_he_gets_his_seat_gives_it_on() -> None:
    """Both in one turn of the loop: a seat that is lost here is lost for good."""
    async with full() as rig:
        await rig.come("a")
        await rig.come("b")
        rig.gate.leave()
        await rig.gone("a")
        await settled()
        assert rig.inside == ["b"] and (rig.gate.taken, rig.gate.waiting) == (1, 0)


async def test_who_has_left_is_passed_over() -> None:
    async with full() as rig:
        await rig.come("a")
        await rig.come("b")
        rig.tasks["a"].cancel()
        rig.gate.leave()
        await settled()
        assert rig.inside == ["b"] and (rig.gate.taken, rig.gate.waiting) == (1, 0)


async def test_a_full_line_turns_the_next_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "LINE", 2)
    async with full() as rig:
        for name in "abc":
            await rig.come(name, rank=1)
        assert rig.refused == ["c"] and rig.gate.waiting == 2
        await rig.come("urgent", rank=0)
        await settled()
        assert rig.refused == ["c", "b"] and rig.gate.waiting == 2, "the last of the least urgent makes room"
        await rig.go()
        assert rig.inside == ["urgent"]


async def test_a_raised_ceiling_lets_them_in_and_a_lowered_one_throws_nobody_out() -> None:
    async with full(2) as rig:
        await rig.come("a")
        rig.gate.configure(1, 1)
        rig.gate.leave()
        await settled()
        assert rig.inside == [] and rig.gate.taken == 1
        rig.gate.configure(2, 2)
        await settled()
        assert rig.inside == ["a"]
        rig.gate.configure(2, 2)


TOO_MUCH = [Throttled("429"), Busy("503"), TimedOut("late", phase="first_token")]
NOT_SO = [Rejected("400"), Broken("reset"), OutOfTime("deadline", phase="total")]


@pytest.mark.parametrize("error", [*TOO_MUCH, *NOT_SO], ids=lambda error: type(error).__name__)
async def test_what_says_that_it_is_too_much(error: GatewayError) -> None:
    """The caller's own mistake or haste must not take seats from the others."""
    async with full(10) as rig:
        await rig.go(error=error)
        assert rig.gate.limit.calls == (int(10 * REFUSED) if error in TOO_MUCH else 10)
        assert rig.gate.taken == 9


async def test_limit_and_line_are_told() -> None:
    async with full(10) as rig:
        assert rig.told == [(10, 0)]
        await rig.come("a")
        await rig.go(error=Busy("503"))
        await rig.gone("a")
        assert rig.told == [(10, 0), (10, 1), (7, 1), (7, 0)]


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from("come go leave cut raise".split()), st.integers(0, 9))))
def test_seats_and_places_add_up(seats: int, steps: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order: nobody waits where there is room, and no seat is lost."""
    asyncio.run(adding_up(seats, steps))


async def adding_up(seats: int, steps: list[tuple[str, int]]) -> None:
    rig = Rig(seats)
    gate, held = rig.gate, 0
    for number, (what, which) in enumerate(steps):
        if what == "come":
            await rig.come(str(number), rank=which % 3)
        elif what == "go" and gate.taken:
            held -= 1
            await rig.go(seconds=0.0)
        elif what == "leave" and rig.tasks:
            await rig.gone(list(rig.tasks)[which % len(rig.tasks)])
        elif what == "cut":
            gate.limit.refused(which * 10.0)
        elif what == "raise":
            gate.configure(which + 1, which + 1)
        await settled()
        assert gate.taken == len(rig.inside) + held
        assert gate.waiting == sum(not task.done() for task in rig.tasks.values())
        assert not gate.waiting or gate.taken >= gate.limit.calls
    for task in rig.tasks.values():
        task.cancel()
    await asyncio.gather(*rig.tasks.values(), return_exceptions=True)
    assert gate.waiting == 0
