"""Shadows must never be seen, never be in the way, and never carry a prompt to where its caller did not allow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.clock import ManualClock
from app.core.errors import ModelNotAllowed, Throttled, UpstreamFailed
from app.core.events import Event, Fault, Finish, Reasoning, Start, Text, ToolCall
from app.core.plan import Plan
from app.core.record import Served
from app.core.request import Request
from app.core.tasks import TaskOwner
from app.gateway.shadow import ANSWER_CHARS, DEADLINE_SECONDS, Room, Shadowed, Shadows, Tap
from app.routing.rollouts import Running
from tests.core.nouns import card, chat, terms
from tests.gateway.fakes import planned

DARK = Running("dark", 1.0, shadow=True, model="gpu/new")
PLAN = replace(planned(card("gpu/old"), card("gpu/new")), arm="dark:control")
CALLER = Caller("key_1", privacy="local")


def begun(model: str, fallback: str | None = None) -> Start:
    start = Start("id", model, 0, "chat")
    start.served = Served("r", model, "gpu", "why", 1, fallback=fallback)
    return start


def answered(model: str = "gpu/old", text: str = "hello", fallback: str | None = None) -> list[Event]:
    return [begun(model, fallback), Text(text), Finish("stop")]


class Setup:
    """A gateway that answers what it is told to; `gate` holds its answers back."""

    def __init__(self, *, at_once: int = 2, per_minute: float = 600, vectors: Sequence[Sequence[float]] = ()) -> None:
        self.clock = ManualClock()
        self.asked: list[tuple[Caller, Request]] = []
        self.events: list[Event | BaseException] = list(answered("gpu/new"))
        self.gate = asyncio.Event()
        self.gate.set()
        self.told: list[Shadowed] = []
        self.errors: list[BaseException] = []
        self.free = True
        self.embedded: list[Sequence[str]] = []
        self.vectors = vectors
        self.tasks = TaskOwner(lambda name, error: self.errors.append(error))
        self.shadows = Shadows(
            self.ask,
            self.told.append,
            tasks=self.tasks,
            clock=self.clock,
            room=Room(self.clock, at_once, per_minute),
            is_free=lambda model: self.free,
            embed=self.embed,
        )

    async def ask(self, caller: Caller, request: Request) -> AsyncGenerator[Event, None]:
        self.asked.append((caller, request))
        await self.gate.wait()
        for event in self.events:
            if isinstance(event, BaseException):
                raise event
            yield event

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        self.embedded.append(texts)
        return self.vectors

    def tap(
        self, request: Request | None = None, plan: Plan = PLAN, running: Sequence[Running] = (DARK,)
    ) -> Tap | None:
        return self.shadows.tap(CALLER, request or chat(), plan, running)

    def answer(self, *events: Event, request: Request | None = None, plan: Plan = PLAN) -> bool:
        """One request is answered; whether its shadow will be asked."""
        tap = self.tap(request, plan)
        assert tap is not None
        for event in events or answered():
            tap.add(event)
        return tap.close()

    async def over(self) -> None:
        assert await self.tasks.drain(5) == 0
        assert self.errors == []


async def test_an_answered_request_is_asked_again_as_one_that_it_caused() -> None:
    setup = Setup()
    request = chat(terms=terms(session="s", stream_id="s", agent="qe", deadline=5.0, trace_parent="t"), body={"a": 1})
    assert setup.answer(request=request)
    await setup.over()
    ((caller, child),) = setup.asked
    assert caller is CALLER
    assert (child.model, child.body, child.messages) == ("gpu/new", request.body, request.messages)
    asked = child.terms
    assert (asked.parent_id, asked.root_id, asked.depth) == ("req-1", "req-1", 1) and asked.request_id != "req-1"
    assert (asked.priority, asked.arm, asked.session) == ("batch", "dark:treatment", None)
    assert asked.stream_id is None, "or the stream of the first would be told of this one's answer"
    assert (asked.agent, asked.trace_parent) == ("qe", "t")
    assert asked.deadline == setup.clock.monotonic() + DEADLINE_SECONDS, "nobody waits for it"
    (told,) = setup.told
    assert (told.rollout, told.of, told.model) == ("dark", "req-1", "gpu/new")
    assert told.request_id == child.id
    assert told.comparison.value == 1.0 and told.outcome.source == "shadow"
    assert told.outcome.at == setup.clock.now()


@pytest.mark.parametrize("by", ["terms", "plan"])
async def test_what_must_stay_local_stays_local(by: str) -> None:
    """`auto:privacy` says so by the model's name, which the shadow does not carry on."""
    setup = Setup()
    private = chat("auto:privacy", terms=terms(local_only=by == "terms"))
    assert setup.answer(request=private, plan=replace(PLAN, strategy="privacy" if by == "plan" else "cost"))
    await setup.over()
    assert setup.asked[0][1].terms.local_only


async def test_what_the_model_refuses_is_only_a_record() -> None:
    setup = Setup(at_once=9)
    for error in (ModelNotAllowed("x"), UpstreamFailed("x"), Throttled("x")):
        setup.events = [error]
        assert setup.answer()
        await setup.over()
    setup.events = [*answered("gpu/new")[:2], Fault(UpstreamFailed("x"))]
    assert setup.answer()
    await setup.over()
    assert setup.told == [] and len(setup.asked) == 4


async def test_another_model_that_stood_in_is_not_compared() -> None:
    setup = Setup()
    setup.events = list(answered("gpu/other", fallback="gpu/new"))
    assert setup.answer()
    await setup.over()
    setup.events = [Start("id", "m", 0, "chat"), Text("x"), Finish("stop")]  # nobody says who it was
    assert setup.answer()
    await setup.over()
    assert setup.told == []


async def test_meanings_are_compared_where_vectors_are_handed_in() -> None:
    setup = Setup(vectors=([1.0, 0.0], [0.0, 1.0]))
    assert setup.answer()
    await setup.over()
    assert setup.embedded == [("hello", "hello")]
    assert setup.told[0].comparison.meaning == 0.0 and setup.told[0].comparison.value == 0.5
    setup.events = list(answered("gpu/new", ""))
    assert setup.answer()
    await setup.over()
    assert len(setup.embedded) == 1 and setup.told[1].comparison.meaning is None


# --- who gets one ---------------------------------------------------------------------------------------------------


def test_a_request_that_another_one_caused_has_no_shadow() -> None:
    """Else a shadow would have a shadow, for ever."""
    assert Setup().tap(chat(terms=terms(depth=1))) is None


def test_only_control_of_a_shadow_rollout_has_one() -> None:
    setup = Setup()
    assert setup.tap(plan=replace(PLAN, arm=None)) is None
    assert setup.tap(plan=replace(PLAN, arm="dark:treatment")) is None
    assert setup.tap(running=()) is None
    assert setup.tap(running=(replace(DARK, share=0.0),)) is None


@pytest.mark.parametrize("events", [answered("gpu/new"), answered("cloud/gpu/new"), answered()[1:]])
async def test_the_model_that_answered_is_not_asked_again(events: list[Event]) -> None:
    setup = Setup()
    assert not setup.answer(*events)
    setup.tap()
    assert setup.asked == []


async def test_an_answer_that_broke_is_not_repeated() -> None:
    setup = Setup()
    assert not setup.answer(*answered()[:2], Fault(UpstreamFailed("x")))


@pytest.mark.parametrize("piece", [Text, Reasoning, lambda text: ToolCall(0, text)])
async def test_an_endless_answer_does_not_fill_the_memory(piece: Any) -> None:
    setup = Setup()
    tap = setup.tap()
    assert tap is not None
    tap.add(begun("gpu/old"))
    for _ in range(5):
        tap.add(piece("x" * (ANSWER_CHARS // 4)))
    assert not tap.close()


# --- room -----------------------------------------------------------------------------------------------------------


async def test_what_finds_no_room_is_dropped() -> None:
    setup = Setup(at_once=2)
    setup.gate.clear()
    assert [setup.answer() for _ in range(4)] == [True, True, False, False]
    assert len(setup.tasks) == 2
    setup.gate.set()
    await setup.over()
    setup.clock.advance(60)
    assert setup.answer()
    await setup.over()


async def test_a_busy_upstream_gets_no_shadows() -> None:
    setup = Setup()
    setup.free = False
    assert not setup.answer()


async def test_room_is_given_back_however_it_ends() -> None:
    setup = Setup(at_once=1)
    setup.events = [RuntimeError("ours")]
    assert setup.answer()
    await setup.tasks.drain(5)
    assert [type(error) for error in setup.errors] == [RuntimeError]
    setup.gate.clear()
    setup.clock.advance(60)
    assert setup.answer()
    await asyncio.sleep(0)
    await setup.tasks.cancel()
    setup.clock.advance(60)
    assert setup.answer()
    await setup.tasks.cancel()


def test_only_so_many_in_a_minute() -> None:
    clock = ManualClock()
    room = Room(clock, at_once=100, per_minute=6)
    assert sum(room.take() for _ in range(50)) == 6
    taken = 0
    for _ in range(60):
        clock.advance(1.0)
        taken += room.take()
    assert taken in (5, 6)


async def test_without_an_embedder_there_are_no_vectors() -> None:
    setup = Setup()
    plain = Shadows(
        setup.ask,
        setup.told.append,
        tasks=setup.tasks,
        clock=setup.clock,
        room=Room(setup.clock),
        is_free=lambda model: True,
    )
    tap = plain.tap(ANONYMOUS, chat(), PLAN, (DARK,))
    assert tap is not None
    for event in answered():
        tap.add(event)
    assert tap.close()
    await setup.over()
    assert setup.told[0].comparison.meaning is None


def test_a_rollout_without_a_model_has_no_shadow() -> None:
    tap = Setup().tap(running=(replace(DARK, model=None),))
    assert tap is not None
    for event in answered():
        tap.add(event)
    assert not tap.close()
