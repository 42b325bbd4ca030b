"""The story of a request, told from both ends: what the caller gets, and the one record that stays of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.card import Ability, Card
from app.core.clock import ManualClock
from app.core.errors import Broken, GatewayError, ModelNotAllowed, ModelNotFound, Refused, Rejected, UpstreamFailed
from app.core.events import Event, Fault, Finish, Start, Text, Usage, fold
from app.core.money import FREE, Price, Tokens
from app.core.plan import Plan
from app.core.record import Record
from app.core.request import Embeddings, Request
from app.core.tasks import TaskOwner
from app.core.verdict import Verdict
from app.gateway.attempts import Attempts
from app.gateway.embeddings import Embedded
from app.gateway.gateway import Gateway
from app.gateway.settle import Settlement
from app.gateway.shadow import Tap
from app.routing.registry import Registry
from tests.core.nouns import card, chat, embedding, paid
from tests.gateway.fakes import FakeUpstream, PlainPlanner, Script, Step, Told, good, start

QWEN = card("gpu/qwen", price=FREE)
OPUS = paid("claude/opus", price=Price(1_000, 2_000, 0, 0, 0))
VERDICT = Verdict(0.2, 0.9, "docs", "v1")
EMBEDDER = card("gpu/embedder", abilities=frozenset({Ability.EMBEDDINGS}), price=Price(1_000, 0, 0, 0, 0))


class House:
    """A gateway over one local and one paid upstream, with everything it notes."""

    def __init__(self, gpu: Sequence[Step] | Script = (), claude: Sequence[Step] | Script = ()) -> None:
        self.gpu = FakeUpstream("gpu", script=_script(gpu))
        self.claude = FakeUpstream("claude", local=False, script=_script(claude))
        self.prepared: list[tuple[str, str | None]] = []
        self.records: list[Record] = []
        self.errors: list[tuple[str, BaseException]] = []
        clock = ManualClock()
        self.health = Told(clock)
        self.tasks = TaskOwner(self._on_error)
        settlement = Settlement([self.records.append], self.tasks, self._on_error)
        attempts = Attempts(self.health, sleep=lambda seconds: asyncio.sleep(0))
        self.planner = PlainPlanner(self.health.demoted, VERDICT)
        self.gateway = Gateway(self.planner, attempts, settlement, clock, prepare=self._prepare)
        self.gateway.registry = Registry([QWEN, OPUS, EMBEDDER])
        self.gateway.upstreams = {"gpu": self.gpu, "claude": self.claude}

    def _prepare(self, request: Request, card: Card, task_type: str | None) -> tuple[Request, tuple[str, ...]]:
        self.prepared.append((card.id, task_type))
        return replace(request, max_tokens=100 + len(self.prepared)), ("max_tokens",)

    def _on_error(self, where: str, error: BaseException) -> None:
        self.errors.append((where, error))

    async def record(self) -> Record:
        """The record of the only request there was."""
        await self.tasks.drain(1.0)
        assert self.errors == []
        (record,) = self.records
        return record

    async def ask(self, model: str = "auto", stream: bool = True, caller: Caller = ANONYMOUS) -> list[Event]:
        async with aclosing(self.gateway.answer(caller, chat(model, stream=stream))) as events:
            return [event async for event in events]

    def is_closed(self) -> bool:
        return all(each.script.opened == each.script.closed for each in (self.gpu, self.claude))


def _script(steps: Sequence[Step] | Script) -> Script:
    return steps if isinstance(steps, Script) else Script(steps)


# --- chats ----------------------------------------------------------------------------------------------------------


async def test_a_request_is_answered_by_the_cheapest_and_recorded_once() -> None:
    house = House(good("hello"), good("dear"))
    answer = fold(await house.ask())
    assert (answer.choices[0].text, answer.start.model) == ("hello", "qwen")
    assert answer.start.served is not None
    assert (answer.start.served.model, answer.start.served.fallback) == ("gpu/qwen", None)
    record = await house.record()
    assert (record.status, record.model, record.tokens, record.cost_nano) == (200, "gpu/qwen", Tokens(10, 5), 0)
    assert [attempt.outcome for attempt in record.attempts] == ["ok"]
    assert (record.endpoint, record.finish, record.strategy) == ("chat", "stop", "cost")
    assert house.claude.asked == []


async def test_when_the_first_fails_the_next_answers_and_says_so() -> None:
    """The user sees one answer; headers and record say whose, and what it stands in for."""
    house = House([Refused("no")], good("dear"))
    answer = fold(await house.ask())
    assert answer.choices[0].text == "dear"
    assert answer.start.served is not None
    assert (answer.start.served.fallback, answer.start.served.attempts) == ("gpu/qwen", 2)
    assert answer.usage is not None
    assert answer.usage.cost_nano == 20
    record = await house.record()
    assert [(each.model, each.outcome) for each in record.attempts] == [("gpu/qwen", "refused"), ("claude/opus", "ok")]
    assert (record.fallback_from, record.cost_nano, record.local) == ("gpu/qwen", 20, False)
    assert house.health.demoted(QWEN) == "failing lately"


@pytest.mark.parametrize("stream", [True, False])
async def test_when_all_fail_the_caller_gets_an_error_and_no_event(stream: bool) -> None:
    """With the status still unsent, it is a status."""
    house = House([Refused("no")], [Refused("no")])
    with pytest.raises(UpstreamFailed, match="gpu/qwen: refused; claude/opus: refused"):
        await house.ask(stream=stream)
    record = await house.record()
    assert (record.status, record.error_code, record.tokens) == (502, "upstream_failed", None)
    assert (record.model, len(record.attempts)) == ("claude/opus", 2)


@pytest.mark.parametrize(("stream", "status"), [(True, 200), (False, 502)])
async def test_an_answer_that_breaks_ends_in_a_fault(stream: bool, status: int) -> None:
    """What came is counted and paid; nobody else's words are added."""
    house = House([start(), Text("x" * 40), Broken("reset")], good("dear"))
    events = await house.ask(stream=stream)
    assert [type(event) for event in events] == [Start, Text, Fault]
    record = await house.record()
    assert (record.status, record.error_code) == (status, "upstream_failed")
    assert (record.tokens, record.usage_estimated) == (Tokens(0, 10), True)
    assert [attempt.outcome for attempt in record.attempts] == ["broken"]
    assert house.claude.asked == []


@pytest.mark.parametrize(
    ("model", "caller", "kind", "status"),
    [
        ("none", ANONYMOUS, ModelNotFound, 404),
        ("claude/opus", Caller(models=("gpu/*",)), ModelNotAllowed, 403),
        ("claude/opus", Caller(privacy="local"), ModelNotAllowed, 403),
    ],
)
async def test_what_cannot_be_planned_is_recorded_too(
    model: str, caller: Caller, kind: type[GatewayError], status: int
) -> None:
    """Otherwise nobody sees that a client has been asking for a model that is gone."""
    house = House(good(), good())
    with pytest.raises(kind):
        await house.ask(model, caller=caller)
    record = await house.record()
    assert (record.status, record.model, record.attempts) == (status, None, ())
    assert house.gpu.asked == house.claude.asked == []


async def test_a_rejection_is_the_callers_and_says_so() -> None:
    house = House([Rejected("temperature is too high", param="temperature")], good())
    with pytest.raises(Rejected, match="too high"):
        await house.ask()
    record = await house.record()
    assert (record.status, record.attempts[0].blame) == (400, "caller")
    assert house.health.demoted(QWEN) is None


@pytest.mark.parametrize("taken", range(1, 5))
async def test_a_caller_that_closes_at_any_event_stops_the_model_and_is_recorded_once(taken: int) -> None:
    """A client that left must not go on costing, and what it cost until then is known."""
    house = House(good(), good())
    events = house.gateway.answer(ANONYMOUS, chat(stream=True))
    for _ in range(taken):
        await anext(events)
    await events.aclose()
    assert house.is_closed()
    record = await house.record()
    assert (record.status, record.error_code, record.client_gone) == (499, "client_gone", True)
    assert record.tokens is not None
    assert house.health.demoted(QWEN) is None


@pytest.mark.parametrize("turns", range(14))
async def test_a_caller_that_is_cancelled_at_any_await_is_recorded_once(turns: int) -> None:
    """From the first turn of the event loop to the last: no upstream is left open, no record lost or doubled."""
    house = House([Refused("no")], good())
    task = asyncio.ensure_future(house.ask())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert house.is_closed()
    assert len(house.health.begun) == len(house.health.outcomes)
    await house.tasks.drain(1.0)
    if turns == 0:  # it never began
        assert house.records == []
    else:
        assert (await house.record()).status == (499 if task.cancelled() else 200)


async def test_what_was_refused_before_is_recorded() -> None:
    """A wrong key never becomes a request, and still is somebody at the door."""
    house = House()
    house.gateway.refused("chat", "mine", ModelNotAllowed("No."), 0.5)
    record = await house.record()
    assert (record.request_id, record.endpoint, record.status) == ("mine", "chat", 403)
    assert record.error_code == "model_not_allowed" and record.model is None and record.seconds == 0.5


async def test_an_answer_that_nobody_reads_asks_nobody() -> None:
    house = House(good())
    await house.gateway.answer(ANONYMOUS, chat()).aclose()
    await house.tasks.drain(1.0)
    assert (house.gpu.asked, house.records) == ([], [])


async def test_a_fault_of_ours_is_raised_and_recorded_as_one() -> None:
    house = House([KeyError("ours")])
    with pytest.raises(KeyError):
        await house.ask()
    record = await house.record()
    assert (record.status, record.error_code, record.attempts[0].blame) == (500, "internal_error", "us")


async def test_a_new_registry_counts_from_the_next_request_on() -> None:
    """Discovery swaps it under running requests."""
    house = House(good("old"), good("new"))
    events = house.gateway.answer(ANONYMOUS, chat())
    await anext(events)
    house.gateway.registry = Registry([OPUS])
    assert Text("old") in [event async for event in events]
    assert fold(await house.ask()).choices[0].text == "new"


async def test_a_usage_that_nobody_told_is_marked() -> None:
    house = House([start(), Text("four"), Finish("stop")])
    events = await house.ask()
    assert events[-1] == Usage(Tokens(0, 1), estimated=True, cost_nano=0)
    assert (await house.record()).usage_estimated


# --- what others add to it ------------------------------------------------------------------------------------------


async def test_defaults_are_filled_in_for_the_model_that_is_asked_and_are_told() -> None:
    """Each fallback gets its own, made from what the caller sent and not from what the model before it got."""
    house = House([Refused("no")], good())
    answer = fold(await house.ask())
    assert house.prepared == [("gpu/qwen", "docs"), ("claude/opus", "docs")]
    assert [asked.max_tokens for asked in house.gpu.asked + house.claude.asked if isinstance(asked, Request)] == [
        101,
        102,
    ]
    assert answer.start.served is not None
    assert answer.start.served.defaults == ("max_tokens",)


async def test_who_answered_a_conversation_is_told_once_it_went_well() -> None:
    """The next turn goes to the same model, whose cache has the history; never to one that failed."""
    house = House([Refused("no")], good())
    await house.ask()
    assert house.planner.told == [(b"req-1", "claude/opus")]
    broken = House([start(), Text("x"), Broken("reset")], good())
    await broken.ask()
    assert broken.planner.told == []
    left = House(good(), good())
    events = left.gateway.answer(ANONYMOUS, chat(stream=True))
    await anext(events)
    await events.aclose()
    assert left.planner.told == []


class FakeTap:
    """Sees an answer, as a shadow's tap does."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.closed = 0

    def add(self, event: Event) -> None:
        self.seen.append(event)

    def close(self) -> bool:
        self.closed += 1
        return True


@pytest.mark.parametrize(("steps", "closed"), [(good(), 1), ([start(), Text("x"), Broken("reset")], 0)])
async def test_a_shadow_sees_what_the_caller_got_and_follows_only_a_whole_answer(
    steps: list[Step], closed: int
) -> None:
    house, tap = House(steps), FakeTap()
    asked: list[tuple[Caller, str, Plan]] = []

    def repeat(caller: Caller, request: Request, plan: Plan) -> Tap | None:
        asked.append((caller, request.id, plan))
        return cast(Tap, tap)

    house.gateway.repeat = repeat
    assert tap.seen == await house.ask()
    assert tap.closed == closed
    ((caller, request_id, made),) = asked
    assert (caller, request_id, made.candidates[0].card) == (ANONYMOUS, "req-1", QWEN)


# --- embeddings -----------------------------------------------------------------------------------------------------


async def embedded(house: House, *inputs: str | tuple[int, ...]) -> Embedded:
    return await house.gateway.embed(ANONYMOUS, embedding("auto", inputs or ("text",)))


async def test_an_embedding_takes_the_same_way() -> None:
    house, vectors = House(), Embeddings(((0.5, 0.5),), "embedder", prompt_tokens=3)
    house.gpu.embeddings = lambda: vectors
    reply, served, usage = await embedded(house)
    assert (reply, served.model, served.attempts) == (vectors, "gpu/embedder", 1)
    assert usage == Usage(Tokens(prompt=3), cost_nano=3)
    record = await house.record()
    assert (record.endpoint, record.status, record.model, record.stream) == ("embeddings", 200, "gpu/embedder", False)
    assert (record.tokens, record.cost_nano, record.usage_estimated) == (Tokens(prompt=3), 3, False)
    assert [attempt.outcome for attempt in record.attempts] == ["ok"]


async def test_what_an_upstream_does_not_count_is_estimated() -> None:
    house = House()
    await embedded(house, "a" * 8, "b" * 5)
    record = await house.record()
    assert (record.tokens, record.usage_estimated) == (Tokens(prompt=4), True)


async def test_an_embedder_that_fails_is_an_error() -> None:
    house = House()

    def broken() -> Embeddings:
        raise Refused("no")

    house.gpu.embeddings = broken
    with pytest.raises(UpstreamFailed):
        await embedded(house)
    record = await house.record()
    assert (record.status, record.tokens, record.attempts[0].outcome) == (502, None, "refused")


async def test_a_caller_that_leaves_an_embedding_is_recorded_as_gone() -> None:
    house = House()
    task = asyncio.ensure_future(embedded(house))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    record = await house.record()
    assert (record.status, record.client_gone, record.attempts[0].outcome) == (499, True, "left")
