"""The story of a request, told from both ends: what the caller gets, and the one record that stays of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.card import Ability, Card
from app.core.clock import ManualClock
from app.core.errors import (
    Broken,
    BudgetExceeded,
    BudgetStoreUnavailable,
    GatewayError,
    ModelNotAllowed,
    ModelNotFound,
    Refused,
    Rejected,
    UpstreamFailed,
)
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
from app.gateway.stages import everyone
from app.routing.registry import Registry
from tests.core.nouns import card, chat, embedding, paid
from tests.gateway.bank import A_NANO_A_TOKEN, Till
from tests.gateway.fakes import FakeUpstream, PlainPlanner, Script, Step, Told, good, start

QWEN = card("gpu/qwen", price=FREE)
OPUS = paid("claude/opus", price=Price(1_000, 2_000, 0, 0, 0))
VERDICT = Verdict(0.2, 0.9, "docs", "v1")
EMBEDDER = card("gpu/embedder", abilities=frozenset({Ability.EMBEDDINGS}), price=Price(1_000, 0, 0, 0, 0))


class House:
    """A gateway over one local and one paid upstream, with everything it notes."""

    till: Till

    def __init__(
        self,
        gpu: Sequence[Step] | Script = (),
        claude: Sequence[Step] | Script = (),
        till: Till | None = None,
        cards: Sequence[Card] = (),
    ) -> None:
        self.gpu = FakeUpstream("gpu", script=_script(gpu))
        self.claude = FakeUpstream("claude", local=False, script=_script(claude))
        self.prepared: list[tuple[str, str | None]] = []
        self.records: list[Record] = []
        self.errors: list[tuple[str, BaseException]] = []
        clock = ManualClock() if till is None else till.clock
        self.health = Told(clock)
        self.tasks = TaskOwner(self._on_error)
        money = {} if till is None else {"leave": till.admission.leave}
        settlement = Settlement([self.records.append], self.tasks, self._on_error, **money)
        attempts = Attempts(self.health, sleep=lambda seconds: asyncio.sleep(0))
        self.planner = PlainPlanner(self.health.demoted, VERDICT)
        admit = everyone if till is None else till.admission
        self.gateway = Gateway(self.planner, attempts, settlement, clock, admit=admit, prepare=self._prepare)
        self.gateway.registry = Registry(cards or [QWEN, OPUS, EMBEDDER])
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


# --- money ------------------------------------------------------------------------------------------------------------

DEAR = paid("claude/opus", price=A_NANO_A_TOKEN)
SECOND = paid("gpu/second", price=A_NANO_A_TOKEN)
LIMITED = Caller(key_id="k", requests_per_minute=100, tokens_per_minute=10_000, concurrency=1)
NO_CONTENT: list[Step] = [start()]


def banked(first: Sequence[Step] | Script, second: Sequence[Step] | Script = (), limit: int | None = 1_000) -> House:
    """Two paid models, and money for their answers. Each answer may be 101 tokens and more, at a nano-dollar each."""
    till = Till(limit)
    house = House(second, first, till, [DEAR, SECOND] if second else [DEAR])
    house.till = till
    return house


async def at_rest(house: House) -> None:
    """All is over, and what the store did not hear was told it again."""
    await house.tasks.drain(5.0)
    await house.till.healed()
    assert house.till.bank.is_at_rest, (house.till.bank.leases, house.till.bank.seats)
    assert not house.till.ledger.open_leases
    assert house.errors == []


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_charged_what_it_cost(stream: bool) -> None:
    house = banked(good())
    answer = fold(await house.ask("claude/opus", stream, LIMITED))
    assert answer.usage is not None and answer.usage.cost_nano == 5
    assert answer.start.served is not None and [each.kind for each in answer.start.served.rates] == [
        "requests",
        "tokens",
    ]
    record = await house.record()
    assert (record.cost_nano, record.tokens, record.attempts[0].leased) == (5, Tokens(10, 5), True)
    await at_rest(house)
    assert (house.till.bank.holds, house.till.bank.charges) == ([101], [5])
    assert cast(Request, house.claude.asked[0]).max_tokens == 101


@pytest.mark.parametrize("stream", [True, False])
async def test_attempts_that_failed_and_may_be_billed_are_part_of_the_cost(stream: bool) -> None:
    """The answer, the record and the budget say the same, whatever came before."""
    house = banked([start(), Broken("reset")], good())
    answer = fold(await house.ask("auto", stream))
    assert answer.usage is not None and answer.usage.cost_nano == 101 + 102 + 5
    record = await house.record()
    assert record.cost_nano == 208 and [each.cost_nano for each in record.attempts] == [101, 102, 5]
    await at_rest(house)
    assert house.till.bank.charges == [101, 102, 5]


async def test_an_attempt_that_is_not_billed_costs_nothing_and_its_money_is_there_for_the_next() -> None:
    house = banked([Refused("no")], good(), limit=102)
    answer = fold(await house.ask("auto"))
    assert answer.usage is not None and answer.usage.cost_nano == 5
    await at_rest(house)
    assert house.till.bank.charges == [0, 5] and (await house.record()).cost_nano == 5


async def test_when_all_fail_nothing_is_held_and_nobody_owes_for_nothing() -> None:
    house = banked([Refused("no")], [Refused("no")])
    with pytest.raises(UpstreamFailed):
        await house.ask("auto", caller=LIMITED)
    await at_rest(house)
    record = await house.record()
    assert (record.cost_nano, record.tokens, record.usage_estimated) == (0, None, False)
    assert sorted(house.till.bank.taken.values()) == [0, 1], "the tokens it had asked for are there again"


async def test_the_same_model_tried_twice_holds_twice_and_is_charged_for_both() -> None:
    house = banked(Script([start(), Broken("reset")], good()))
    answer = fold(await house.ask("claude/opus"))
    assert answer.usage is not None and answer.usage.cost_nano == 106
    await at_rest(house)
    assert house.till.bank.charges == [101, 5] and [each.outcome for each in (await house.record()).attempts] == [
        "broken",
        "ok",
    ]


async def test_a_refusal_is_no_attempt_and_says_nothing_about_anybody() -> None:
    house = banked(good(), good(), limit=10)
    with pytest.raises(BudgetExceeded, match="global budget"):
        await house.ask("claude/opus", caller=LIMITED)
    await at_rest(house)
    record = await house.record()
    assert (record.status, record.error_code, record.attempts) == (429, "budget_exceeded", ())
    assert house.health.begun == [] and house.till.refusals == [("global", 10)]
    assert house.till.bank.taken == {} and house.claude.asked == []


async def test_a_stream_that_outgrows_what_may_be_spent_ends_there() -> None:
    """The model stops at once, the client has a whole answer that says why, and the record is of a success."""
    pieces: list[Step] = [Text("abcd") for _ in range(300)]
    house = banked([start(), *pieces, Finish("stop"), Usage(Tokens(10, 300))], limit=150)
    *_, finish, usage = await house.ask("claude/opus", caller=LIMITED)
    assert finish == Finish("length") and isinstance(usage, Usage) and usage.stopped == "budget"
    assert house.is_closed()
    record = await house.record()
    assert (record.status, record.error_code, record.finish, record.client_gone) == (200, None, "length", False)
    assert record.attempts[0].outcome == "stopped" and record.cost_nano == usage.cost_nano == 101
    assert [error for _, error in house.health.outcomes if isinstance(error, Exception)] == []
    await at_rest(house)


async def test_an_answer_that_was_ended_for_money_is_not_asked_for_again_in_a_shadow() -> None:
    class Watching:
        closed = 0

        def add(self, event: Event) -> None: ...

        def close(self) -> bool:
            self.closed += 1
            return True

    for limit, closed in ((150, 0), (None, 1)):
        house = banked([start(), *[Text("a")] * 200, Finish("stop")], limit=limit)
        tap = Watching()
        house.gateway.repeat = lambda caller, request, plan, tap=tap: cast(Tap, tap)
        await house.ask("claude/opus")
        assert tap.closed == closed
        await at_rest(house)


@pytest.mark.parametrize("told", [7, None])
async def test_embeddings_are_charged_what_was_read(told: int | None) -> None:
    house = banked(good())
    house.gateway.registry = Registry([EMBEDDER])
    house.gpu.embeddings = lambda: Embeddings(((0.5,),), "m", told)
    embedded = await house.gateway.embed(LIMITED, embedding("gpu/embedder"))
    held = house.till.bank.holds[0]
    assert embedded.usage.cost_nano == (told or held) and embedded.served.rates
    assert (await house.record()).cost_nano == embedded.usage.cost_nano
    await at_rest(house)
    assert house.till.bank.charges == [told or held]


async def test_an_embedding_that_failed_holds_nothing() -> None:
    house = banked(good())
    house.gateway.registry = Registry([EMBEDDER])

    def fails() -> Embeddings:
        raise Rejected("too long")

    house.gpu.embeddings = fails
    with pytest.raises(Rejected):
        await house.gateway.embed(LIMITED, embedding("gpu/embedder"))
    await at_rest(house)
    assert house.till.bank.charges == [0]


async def test_while_the_store_is_away_the_free_model_answers_and_the_paid_one_is_not_asked() -> None:
    house = House(good("free"), good(), till := Till(1_000))
    house.till = till
    till.bank.away = True
    assert fold(await house.ask("auto")).choices[0].text == "free"
    with pytest.raises(BudgetStoreUnavailable):
        await house.ask("claude/opus")
    await house.tasks.drain(1.0)
    assert [record.status for record in house.records] == [200, 503] and house.claude.asked == []
    assert till.refusals == [("store", None)]


async def test_an_error_while_the_request_is_made_ready_gives_back_what_it_was_given() -> None:
    """The second time, when a seat was taken and the first attempt is to be paid."""
    house = banked(Script([start(), Broken("reset")], good()))
    prepare = house._prepare

    def breaks(request: Request, card: Card, task_type: str | None) -> tuple[Request, tuple[str, ...]]:
        if house.prepared:
            raise KeyError("a mistake")
        return prepare(request, card, task_type)

    house.gateway._prepare = breaks
    with pytest.raises(KeyError):
        await house.ask("claude/opus", caller=LIMITED)
    assert (await house.record()).cost_nano == 101
    await at_rest(house)
    assert house.till.bank.charges == [101]


@pytest.mark.parametrize("taken", range(1, 5))
async def test_a_caller_that_closes_at_any_event_is_charged_once(taken: int) -> None:
    house = banked(good())
    events = house.gateway.answer(LIMITED, chat("claude/opus", stream=True))
    for _ in range(taken):
        await anext(events)
    await events.aclose()
    record = await house.record()
    await at_rest(house)
    assert house.till.bank.charges == [record.cost_nano] and len(house.till.bank.final) == 1


@pytest.mark.parametrize("turns", range(30))
@pytest.mark.parametrize("trouble", ["none", "broken", "extended", "embedding"])
async def test_a_caller_that_is_cancelled_at_any_await_leaves_nothing_held(trouble: str, turns: int) -> None:
    """In line for money, while the model answers, between two attempts, while more is held, while it is paid for."""
    steps: dict[str, Script] = {
        "broken": Script([start(), Broken("reset")], good()),
        "extended": Script([start(), *[Text("a")] * 110, Finish("stop"), Usage(Tokens(10, 110))]),
    }
    house = banked(steps.get(trouble, Script(good())), limit=5_000)
    asking: Coroutine[Any, Any, object] = house.ask("claude/opus", caller=LIMITED)
    if trouble == "embedding":
        asking.close()
        house.gateway.registry = Registry([EMBEDDER])
        asking = house.gateway.embed(LIMITED, embedding("gpu/embedder"))
    task = asyncio.ensure_future(asking)
    for _ in range(turns if trouble != "extended" else 4 * turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert house.is_closed()
    await house.tasks.drain(5.0)
    await at_rest(house)
    if turns:
        record = await house.record()
        assert (record.cost_nano or 0) == sum(house.till.bank.charges)
        assert len(house.health.begun) == len(house.health.outcomes) == len(record.attempts)
