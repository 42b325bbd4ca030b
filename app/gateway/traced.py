"""Stages of a request that note for its trace when they began and ended. Each is the stage it wraps, and stands only
where traces are on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, NamedTuple

from app.core.caller import Caller
from app.core.card import Card
from app.core.errors import GatewayError, InternalError
from app.core.events import Event, Text
from app.core.request import AnyRequest, Request
from app.core.steps import ADMIT, PLAN, Steps
from app.gateway.account import Account
from app.gateway.planning import Planned
from app.gateway.settle import Leave
from app.gateway.stages import Admit, Answers, Planner
from app.routing.registry import Registry
from app.telemetry.genai import asked_of
from app.telemetry.tracing import Tracing


class Stages(NamedTuple):
    """Those that a gateway is made of and that a trace tells of. `leave` pays what a request owes."""

    planner: Planner
    admit: Admit
    leave: Leave


def traced(plain: Stages, tracing: Tracing | None) -> Stages:
    """The same stages, noting what they do where traces are on."""
    if tracing is None:
        return plain
    admission = TracedAdmission(plain.admit, plain.leave, tracing.paid)
    return Stages(TracedPlanner(plain.planner), admission, admission.leave)


class TracedPlanner:
    """Satisfies `Planner`."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self.answered = planner.answered

    def __call__(self, request: AnyRequest, caller: Caller, registry: Registry) -> Planned:
        if (steps := request.terms.steps) is None:
            return self._planner(request, caller, registry)
        began, error = steps.clock.monotonic(), None
        try:
            return self._planner(request, caller, registry)
        except Exception as failed:  # noted and raised again
            error = _code(failed)
            raise
        finally:
            steps.note(PLAN, began, None, error)


class TracedAdmission:
    """Satisfies `Admit`; `leave` pays. `paid` is told when that is over. Who is let in begins an attempt."""

    def __init__(self, admit: Admit, leave: Leave, paid: Callable[[Steps], None]) -> None:
        self._admit = admit
        self._leave = leave
        self._paid = paid
        self.extend = admit.extend

    async def enter(
        self, account: Account, caller: Caller, request: AnyRequest, card: Card, *, at_last: bool
    ) -> AnyRequest:
        if (steps := request.terms.steps) is None:
            return await self._admit.enter(account, caller, request, card, at_last=at_last)
        account.steps = steps
        began = steps.clock.monotonic()
        try:
            sent = await self._admit.enter(account, caller, request, card, at_last=at_last)
        except BaseException as failed:  # noted and raised again: a refusal, or a caller that left
            steps.note(ADMIT, began, card.id, _code(failed))
            raise
        steps.note(ADMIT, began, card.id)
        steps.attempt()
        return sent

    def leave(self, account: Account, tokens_used: int) -> Coroutine[Any, Any, None]:
        paying = self._leave(account, tokens_used)
        if account.steps is None:
            return paying
        account.steps.owing = True
        return self._leaving(paying, account.steps)

    async def _leaving(self, paying: Coroutine[Any, Any, None], steps: Steps) -> None:
        try:
            await paying
        finally:
            self._paid(steps)


class Captured:
    """Answers whose texts an operator wants in traces, where the key allows that they are kept. Satisfies `Answers`."""

    def __init__(self, gateway: Answers) -> None:
        self._gateway = gateway

    async def answer(self, caller: Caller, request: Request) -> AsyncGenerator[Event, None]:
        content = None if request.terms.steps is None or caller.store_content == "off" else request.terms.steps.content
        if content is not None:
            content.asked = asked_of(request.messages, content.most)
        async with contextlib.aclosing(self._gateway.answer(caller, request)) as events:
            async for event in events:
                if content is not None and type(event) is Text:
                    content.add(event.text)
                yield event


def _code(error: BaseException) -> str:
    if isinstance(error, GatewayError):
        return error.code
    return InternalError.code if isinstance(error, Exception) else "left"
