"""Shadows: a share of the answered requests is asked of another model too, afterwards, and the answers are compared.

Nobody waits for a shadow and nobody sees it. It runs in a task of its own, as a request that the first one caused, with
the same caller and the same privacy; only so many at a time and in a minute, and only where the other model's upstream
is free: what finds no room is dropped.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.core.caller import Caller
from app.core.clock import Clock
from app.core.errors import GatewayError
from app.core.events import Answer, Event, Fold, Reasoning, Text, ToolCall
from app.core.outcome import Outcome
from app.core.plan import Plan
from app.core.request import Request
from app.core.tasks import TaskOwner
from app.routing.comparison import Comparison, compare, cosine, outcome_of, text_of
from app.routing.rollouts import TREATMENT, Running, shadow_of

AT_ONCE: Final = 4
PER_MINUTE: Final = 60
DEADLINE_SECONDS: Final = 120.0
ANSWER_CHARS: Final = 262_144  # longer answers are not compared

Ask = Callable[[Caller, Request], AsyncGenerator[Event, None]]
Embed = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]


@dataclass(frozen=True, slots=True)
class Shadowed:
    """One shadow that answered. `request_id` is its own, `of` that of the request it repeated."""

    rollout: str
    request_id: str
    of: str
    model: str
    comparison: Comparison
    outcome: Outcome


async def _no_vectors(texts: Sequence[str]) -> Sequence[Sequence[float]]:
    return ()


class Room:
    """So many at a time, and so many in a minute on average."""

    def __init__(self, clock: Clock, at_once: int = AT_ONCE, per_minute: float = PER_MINUTE) -> None:
        self._clock = clock
        self._free = at_once
        self._per_minute = per_minute
        self._left = min(per_minute, at_once)
        self._most = max(1.0, self._left)
        self._filled = clock.monotonic()

    def take(self) -> bool:
        now = self._clock.monotonic()
        self._left = min(self._most, self._left + (now - self._filled) * self._per_minute / 60)
        self._filled = now
        if self._free <= 0 or self._left < 1:
            return False
        self._free -= 1
        self._left -= 1
        return True

    def give_back(self) -> None:
        self._free += 1


class Shadows:
    """`ask` is the way of every request; `told` hears of each comparison; `is_free(model)` whether the model's upstream
    has time for it; `embed` makes vectors of texts, none where meanings are not compared."""

    def __init__(
        self,
        ask: Ask,
        told: Callable[[Shadowed], None],
        *,
        tasks: TaskOwner,
        clock: Clock,
        room: Room,
        is_free: Callable[[str], bool],
        embed: Embed = _no_vectors,
    ) -> None:
        self._ask = ask
        self._told = told
        self._tasks = tasks
        self._clock = clock
        self._room = room
        self._is_free = is_free
        self._embed = embed

    def tap(self, caller: Caller, request: Request, plan: Plan, running: Sequence[Running]) -> Tap | None:
        """What is to see every event of the answer, if this request is one to repeat. Requests that another one caused
        are not."""
        if request.terms.depth:
            return None
        rollout = shadow_of(running, plan.arm, request.id)
        if rollout is None:
            return None
        if plan.strategy == "privacy":  # whoever asked for it: the model's name, the header or the configuration
            request = replace(request, terms=replace(request.terms, local_only=True))
        return Tap(self, caller, request, rollout)

    def offer(self, caller: Caller, request: Request, given: Answer, rollout: Running) -> bool:
        """Asks the shadow's model, unless there is no room for it now."""
        model = rollout.model
        served = given.start.served
        if model is None or served is None or served.model.partition("/")[2] == model or served.model == model:
            return False
        if not self._is_free(model) or not self._room.take():
            return False
        self._tasks.spawn(self._run(caller, request, given, rollout, model), f"shadow of {request.id}")
        return True

    async def _run(self, caller: Caller, request: Request, given: Answer, rollout: Running, model: str) -> None:
        try:
            child = self._child(request, rollout, model)
            with contextlib.suppress(GatewayError):  # it is in the records, and nobody waits for it
                other = await self._answer(caller, child)
                if other.fault is None:
                    await self._compare(request, given, other, child, rollout)
        finally:
            self._room.give_back()

    async def _answer(self, caller: Caller, child: Request) -> Answer:
        fold = Fold()
        async with contextlib.aclosing(self._ask(caller, child)) as events:
            async for event in events:
                fold.add(event)
        return fold.answer()

    async def _compare(self, request: Request, given: Answer, other: Answer, child: Request, rollout: Running) -> None:
        by, instead = given.start.served, other.start.served
        if by is None or instead is None or instead.fallback is not None:
            return  # another model stood in: that says nothing about this one but that it failed
        texts = text_of(given), text_of(other)
        vectors = await self._embed(texts) if all(texts) else ()
        meaning = cosine(*vectors) if len(vectors) == len(texts) else None
        comparison = compare(request, given, other, meaning)
        outcome = outcome_of(comparison, self._clock.now())
        self._told(Shadowed(rollout.name, child.id, request.id, instead.model, comparison, outcome))

    def _child(self, request: Request, rollout: Running, model: str) -> Request:
        """Whoever sent the first request set a deadline for the answer he waits for; this one nobody waits for."""
        steps = None if request.terms.steps is None else request.terms.steps.child()
        terms = replace(
            request.terms,
            steps=steps,
            trace_parent=request.terms.trace_parent if steps is None else steps.header,
            request_id=f"req_{uuid.uuid4().hex}",
            parent_id=request.id,
            depth=request.terms.depth + 1,
            deadline=self._clock.monotonic() + DEADLINE_SECONDS,
            priority="batch",
            session=None,
            stream_id=None,
            arm=f"{rollout.name}:{TREATMENT}",
        )
        return replace(request, model=model, terms=terms)


class Tap:
    """Collects one answer while it passes."""

    def __init__(self, shadows: Shadows, caller: Caller, request: Request, rollout: Running) -> None:
        self._shadows = shadows
        self._caller = caller
        self._request = request
        self._rollout = rollout
        self._fold = Fold()
        self._room = ANSWER_CHARS

    def add(self, event: Event) -> None:
        match event:
            case Text(text=piece) | Reasoning(text=piece) | ToolCall(arguments=piece):
                self._room -= len(piece)
        if self._room >= 0:
            self._fold.add(event)

    def close(self) -> bool:
        """The answer is over and went well. Whether its shadow will be asked."""
        if self._room < 0 or self._fold.start is None or self._fold.fault is not None:
            return False
        return self._shadows.offer(self._caller, self._request, self._fold.answer(), self._rollout)
