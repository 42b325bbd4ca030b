"""The stages that a request passes and that others provide: planning, filling in defaults, repeating in a shadow."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Protocol

from app.core.caller import Caller
from app.core.card import Card
from app.core.events import Event
from app.core.plan import Plan
from app.core.request import AnyRequest, Request
from app.gateway.account import Account
from app.gateway.planning import Planned
from app.gateway.sessions import Conversation
from app.gateway.shadow import Tap
from app.routing.registry import Registry

Converse = Callable[[Caller, Request], Awaitable[Conversation | None]]
"""The conversation that a request goes on with, where there is one to keep or to shorten."""


class Answers(Protocol):
    def answer(self, caller: Caller, request: Request) -> AsyncGenerator[Event, None]:
        """As `Gateway.answer` has it."""
        ...


class Planner(Protocol):
    def __call__(self, request: AnyRequest, caller: Caller, registry: Registry) -> Planned: ...

    def answered(self, planned: Planned, model: str) -> None:
        """Who answered, once a request went well."""
        ...


class Admit(Protocol):
    async def enter(
        self, account: Account, caller: Caller, request: AnyRequest, card: Card, *, at_last: bool
    ) -> AnyRequest:
        """The request as this model may get it. Raises what keeps it from there; `at_last`: nothing else is left."""
        ...

    async def extend(self, account: Account) -> bool:
        """Whether an answer that outgrew its hold may go on."""
        ...


class Prepare(Protocol):
    def __call__(self, request: Request, card: Card, task_type: str | None) -> tuple[Request, tuple[str, ...]]:
        """The request as this model should get it, and the names of what was filled in."""
        ...


class Repeat(Protocol):
    def __call__(self, caller: Caller, request: Request, plan: Plan) -> Tap | None:
        """What wants to see every event of this answer, to have it repeated elsewhere afterwards."""
        ...


async def unkept(caller: Caller, request: Request) -> Conversation | None:
    return None


def as_it_came(request: Request, card: Card, task_type: str | None) -> tuple[Request, tuple[str, ...]]:
    return request, ()


def never_again(caller: Caller, request: Request, plan: Plan) -> Tap | None:
    return None


class Everyone:
    """Lets every request go anywhere."""

    async def enter(
        self, account: Account, caller: Caller, request: AnyRequest, card: Card, *, at_last: bool
    ) -> AnyRequest:
        return request

    async def extend(self, account: Account) -> bool:
        return True


everyone: Final = Everyone()
