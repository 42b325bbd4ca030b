"""Without a seat taken first, requests hold money while they wait; one that is not given back is lost for all."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import pytest

from app.config.schema import Upstream
from app.config.settings import UpstreamSettings
from app.core.caller import ANONYMOUS
from app.core.card import Card
from app.core.clock import ManualClock
from app.core.errors import Broken, BudgetExceeded, Busy, GatewayError, Overloaded, Refused, Shed
from app.core.events import Fault, Text, is_content
from app.core.plan import Candidate, Estimate, Plan
from app.gateway.attempts import Attempts
from app.gateway.planning import Planned
from app.gateway.recording import record_of
from app.gateway.seating import MOVE_SECONDS, Seating, ceilings, rank
from app.upstreams.gate import Gate
from app.upstreams.gates import Ceiling
from app.upstreams.limit import Limit
from tests.core.nouns import card, chat, paid, terms
from tests.gateway.bank import A_NANO_A_TOKEN, Till
from tests.gateway.fakes import Script, Step, Told, exchange_of, good, start

A, B, C, D = card("one/a"), card("two/b"), paid("claude/c"), paid("other/d")


class Patient(Gate):
    """A gate without a free seat that remembers how long somebody would have waited, and then has one, or not."""

    def __init__(self, clock: ManualClock, gives_way: bool = False) -> None:
        super().__init__("one", Limit(1, 1), clock)
        self.manual = clock
        self.gives_way = gives_way
        self.waits: list[tuple[int, float]] = []
        self.taken = 1

    async def wait(self, rank: int, seconds: float) -> None:
        self.waits.append((rank, seconds))
        await asyncio.sleep(0)
        if not self.gives_way:
            self.manual.advance(seconds)
            raise Shed("full", cause="upstream", retry_after=3)
        self.manual.advance(0.5)
        self.taken += 1


@dataclass
class Rig:
    """A request over some models, with gates before their upstreams."""

    candidates: tuple[Candidate, ...]
    gates: dict[str, Gate] = field(default_factory=dict)
    dearer_after: float | None = None
    clock: ManualClock = field(default_factory=ManualClock)
    shed: list[str] = field(default_factory=list)
    entered: list[tuple[str, bool]] = field(default_factory=list)
    keeps_out: dict[str, GatewayError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.health = Told(self.clock)
        self.seating = Seating(MappingProxyType(self.gates), 30.0, lambda: self.dearer_after, self.shed.append)
        self.attempts = Attempts(self.health, seating=self.seating)
        self.exchange = exchange_of(*(each.card for each in self.candidates), clock=self.clock)
        self.exchange.planned = Planned(Plan(self.candidates, "cost"))

    async def enter(self, candidate: Candidate, at_last: bool) -> None:
        await asyncio.sleep(0)
        self.entered.append((candidate.card.id, at_last))
        if (error := self.keeps_out.get(candidate.card.id)) is not None:
            raise error

    async def run(self, *steps: Step) -> str:
        """The model that answered."""
        script = Script(list(steps) or good())
        walk = self.attempts.walk(self.exchange, self.enter, lambda chosen: script.play(), is_content, Fault)
        async with contextlib.aclosing(walk):
            async for _ in walk:
                pass
        assert self.exchange.candidate is not None
        return self.exchange.candidate.card.id


def rig(*cards: Card, **more: Gate) -> Rig:
    return Rig(tuple(Candidate(each, "it can do this") for each in cards), dict(more))


def gate(seats: int = 1) -> Gate:
    return Gate("one", Limit(seats, seats), ManualClock())


async def test_a_seat_is_taken_before_money_and_given_back_after() -> None:
    one = gate()
    run = rig(A, one=one)
    taken: list[int] = []

    async def enter(candidate: Candidate, at_last: bool) -> None:
        taken.append(one.taken)

    run.enter = enter  # type: ignore[method-assign]  # the rig's own fake
    assert await run.run() == "one/a"
    assert taken == [1] and one.taken == 0


async def held_while_asleep(*scripts: list[Step], again: bool = False) -> list[int]:
    """A request whose paid attempt failed stands in a full line for the next, and holds nothing; how many holds there
    were whenever it waited before. `again`: it is in another walk by then."""
    till, full = Till(100), gate()
    assert full.enter()
    run = rig(paid("claude/c", price=A_NANO_A_TOKEN), paid("other/d", price=A_NANO_A_TOKEN), other=full)
    script, asleep = Script(*scripts), list[int]()

    async def sleep(seconds: float) -> None:
        asleep.append(len(till.bank.leases))

    run.attempts = Attempts(run.health, sleep=sleep, seating=run.seating, pay=till.admission.settle)
    request = chat(max_tokens=100)

    async def enter(candidate: Candidate, at_last: bool) -> None:
        await till.admission.enter(run.exchange.account, ANONYMOUS, request, candidate.card, at_last=at_last)

    async def ask() -> None:
        for _ in range(1 + again):
            walk = run.attempts.walk(run.exchange, enter, lambda chosen: script.play(), is_content, Fault)
            async with contextlib.aclosing(walk):
                async for _ in walk:
                    pass
            run.exchange.continues("hel")

    task = asyncio.get_running_loop().create_task(ask())
    async with asyncio.timeout(10):
        while not full.waiting:
            await asyncio.sleep(0)
    assert till.bank.holds and not till.bank.leases
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await till.admission.leave(run.exchange.account, 0)
    assert till.bank.is_at_rest and full.taken == 1
    return asleep


async def test_who_waits_in_the_next_line_holds_nothing_for_the_attempt_before() -> None:
    """Else the money of those who wait keeps others from free seats."""
    assert await held_while_asleep([Refused("no")]) == [0]


async def test_who_waits_before_a_second_try_holds_nothing_either() -> None:
    assert await held_while_asleep([Busy("503")], [Refused("no")]) == [0, 0]


async def test_an_answer_that_is_gone_on_with_holds_nothing_for_what_broke() -> None:
    assert await held_while_asleep([start(), Text("hel"), Broken("reset")], again=True) == []


async def test_whom_money_keeps_out_has_no_seat() -> None:
    one = gate()
    run = rig(A, B, one=one)
    run.keeps_out["one/a"] = BudgetExceeded("nothing left")
    assert await run.run() == "two/b"
    assert one.taken == 0


@pytest.mark.parametrize("error", [Busy("503"), RuntimeError("ours")], ids=["upstream", "ours"])
async def test_a_failure_gives_the_seat_back(error: Exception) -> None:
    one = gate()
    with pytest.raises(type(error) if isinstance(error, RuntimeError) else Overloaded):
        await rig(A, one=one).run(error)
    assert one.taken == 0


async def test_a_caller_who_leaves_gives_the_seat_back() -> None:
    one = gate()
    run = rig(A, one=one)
    task = asyncio.get_running_loop().create_task(run.run(None))
    while one.taken == 0:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert one.taken == 0


async def test_a_caller_who_leaves_while_he_is_let_in_gives_the_seat_back() -> None:
    one = gate()
    run = rig(A, one=one)

    async def enter(candidate: Candidate, at_last: bool) -> None:
        await asyncio.Event().wait()

    run.enter = enter  # type: ignore[method-assign]  # the rig's own fake
    task = asyncio.get_running_loop().create_task(run.run())
    while one.taken == 0:
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert one.taken == 0


async def test_the_only_one_is_waited_for_as_long_as_may_be() -> None:
    run = rig(A)
    run.gates["one"] = line = Patient(run.clock)
    with pytest.raises(Shed) as raised:
        await run.run()
    assert line.waits == [(0, 30.0)] and raised.value.retry_after == 3
    assert run.shed == ["upstream"] and run.entered == []


async def test_a_wait_is_not_the_gateways_own_work() -> None:
    run = rig(A)
    run.gates["one"] = Patient(run.clock, gives_way=True)
    assert await run.run() == "one/a"
    assert run.exchange.queued == 0.5 and record_of(run.exchange).overhead_seconds == 0.0
    assert run.shed == []


async def test_an_equal_one_that_costs_no_more_is_tried_after_a_moment() -> None:
    run = rig(A, B)
    run.gates["one"] = line = Patient(run.clock)
    assert await run.run() == "two/b"
    assert line.waits == [(0, MOVE_SECONDS)] and run.shed == []


async def test_overload_alone_makes_nothing_dearer_for_as_long_as_anybody_may_wait() -> None:
    run = rig(A, C)
    run.gates["one"] = line = Patient(run.clock)
    assert await run.run() == "claude/c"
    assert line.waits == [(0, 30.0)]


async def test_an_operator_may_say_after_how_long_a_paid_one_relieves_a_free_one() -> None:
    run = rig(A, C)
    run.dearer_after = 4.0
    run.gates["one"] = line = Patient(run.clock)
    assert await run.run() == "claude/c"
    assert line.waits == [(0, 4.0)]


async def test_of_paid_ones_a_cheaper_is_tried_soon_and_a_dearer_late() -> None:
    for cost, seconds in ((5, MOVE_SECONDS), (50, 30.0), (None, 30.0)):
        candidates = Candidate(C, "", estimate=Estimate(10)), Candidate(D, "", estimate=Estimate(cost))
        run = Rig(candidates, dearer_after=4.0)
        run.gates["claude"] = line = Patient(run.clock)
        assert await run.run() == "other/d"
        assert line.waits == [(0, seconds)]


async def test_a_weaker_one_is_tried_late() -> None:
    """Who needs the able model waits for it; a worse answer is not what a busy minute is for."""
    for success, seconds in ((0.78, MOVE_SECONDS), (0.5, 30.0), (None, MOVE_SECONDS)):
        able = Candidate(A, "", estimate=Estimate(success=0.8))
        run = Rig((able, Candidate(B, "", estimate=Estimate(success=success))))
        run.gates["one"] = line = Patient(run.clock)
        assert await run.run() == "two/b"
        assert line.waits == [(0, seconds)]


async def test_another_model_of_the_same_server_is_no_way_around_its_line() -> None:
    run = rig(A, card("one/b"))
    run.gates["one"] = line = Patient(run.clock)
    with pytest.raises(Shed):
        await run.run()
    assert [seconds for _, seconds in line.waits] == [30.0, 0.0, 0.0, 0.0]


async def test_all_lines_together_take_no_longer_than_one_may() -> None:
    run = rig(A, B)
    run.gates["one"], run.gates["two"] = first, second = Patient(run.clock), Patient(run.clock)
    with pytest.raises(Shed):
        await run.run()
    assert (first.waits, second.waits) == ([(0, MOVE_SECONDS), (0, 0.0)], [(0, 30.0 - MOVE_SECONDS), (0, 0.0)])
    assert run.shed == ["upstream"]


async def test_nobody_waits_beyond_his_deadline() -> None:
    run = rig(A)
    run.exchange.deadline = run.clock.monotonic() + 1.5
    run.gates["one"] = line = Patient(run.clock)
    with pytest.raises(Shed):
        await run.run()
    assert line.waits == [(0, 1.5)]


async def test_only_streams_tell_how_soon_a_first_token_comes() -> None:
    """A whole answer takes as long as it is long, which says nothing of the server."""
    for stream, told in ((True, ["one/a"]), (False, [])):
        one, seen = gate(), list[str]()
        one.first_token = lambda model, seconds: seen.append(model)  # type: ignore[method-assign] # noqa: B023
        run = rig(A, one=one)
        run.exchange.request = replace(chat(), stream=stream)
        await run.run()
        assert seen == told


@pytest.mark.parametrize(
    ("given", "expected"), [({}, 0), ({"priority": "batch"}, 1), ({"priority": "batch", "arm": "x:treatment"}, 2)]
)
def test_people_before_batches_before_shadows(given: dict[str, str], expected: int) -> None:
    assert rank(terms(**given)) == expected


def test_what_an_operator_said_is_the_most_and_the_usual_only_a_start() -> None:
    usual = UpstreamSettings("a", "ollama", ("http://h",), max_concurrency=8)
    found = ceilings({"a": usual, "b": replace(usual, ceiling_said=True)})
    assert found == {"a": Ceiling(8), "b": Ceiling(8, said=True)}
    assert Upstream(kind="ollama").max_concurrency is None
