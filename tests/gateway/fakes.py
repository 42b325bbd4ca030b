"""Upstreams that do as they are told, and what a gateway needs around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from app.core.caller import ANONYMOUS, Caller
from app.core.card import Card
from app.core.clock import ManualClock
from app.core.events import Event, Finish, Start, Text, Usage
from app.core.money import Tokens
from app.core.plan import Candidate, Plan
from app.core.request import EmbeddingRequest, Embeddings, Request
from app.core.verdict import Verdict
from app.gateway.exchange import Exchange
from app.gateway.planning import Planned
from app.routing.policy import plan
from app.routing.registry import Registry
from app.routing.rules import Rules
from app.routing.signals import Signals
from app.upstreams.health import Health
from tests.core.nouns import chat

Step = Event | BaseException | Callable[[], None] | None
"""An event to send, an error to raise, something to do, or None: to hang until cancelled."""


def start(model: str = "qwen") -> Start:
    return Start("chatcmpl-1", model, 1_700_000_000, "chat")


def good(text: str = "hello") -> list[Step]:
    return [start(), Text(text), Finish("stop"), Usage(Tokens(10, 5))]


class Script:
    """Plays one list of steps per call, and keeps count of what was opened and closed. Calls beyond the last list
    play it again."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self._scripts = scripts
        self.opened = 0
        self.closed = 0

    async def play(self) -> AsyncGenerator[Event, None]:
        steps = self._scripts[min(self.opened, len(self._scripts) - 1)]
        self.opened += 1
        try:
            for step in steps:
                await asyncio.sleep(0)
                if step is None:
                    await asyncio.Event().wait()
                elif isinstance(step, BaseException):
                    raise step
                elif callable(step):
                    step()
                else:
                    yield step
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                self.closed += 1


@dataclass
class FakeUpstream:
    """An upstream whose every answer is written down."""

    name: str = "gpu"
    kind: str = "openai"
    local: bool = True
    script: Script = field(default_factory=lambda: Script(good()))
    embeddings: Callable[[], Embeddings] = lambda: Embeddings(((0.5,),), "m", None)
    listed: Callable[[], Sequence[Card]] = tuple
    asked: list[Request | EmbeddingRequest] = field(default_factory=list)

    async def stream(self, request: Request, card: Card) -> AsyncGenerator[Event, None]:
        self.asked.append(request)
        events = self.script.play()
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    async def embed(self, request: EmbeddingRequest, card: Card) -> Embeddings:
        self.asked.append(request)
        await asyncio.sleep(0)
        return self.embeddings()

    async def cards(self) -> Sequence[Card]:
        await asyncio.sleep(0)
        return self.listed()

    async def close(self) -> None: ...


class Told(Health):
    """Health that also remembers what it was told."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__({}, clock, lambda upstream, model, state: None)
        self.begun: list[str] = []
        self.outcomes: list[tuple[str, BaseException | None]] = []

    def started(self, card: Card) -> None:
        self.begun.append(card.id)
        super().started(card)

    def ended(self, card: Card, error: BaseException | None) -> None:
        self.outcomes.append((card.id, error))
        super().ended(card, error)


def planned(*cards: Card) -> Plan:
    return Plan(tuple(Candidate(card, "it can do this") for card in cards), "cost")


def exchange_of(
    *cards: Card,
    request: Request | EmbeddingRequest | None = None,
    caller: Caller = ANONYMOUS,
    clock: ManualClock | None = None,
) -> Exchange:
    """An exchange whose plan is these models in order; without any, one that has no plan yet."""
    exchange = Exchange(caller, request or chat(), "chat", clock or ManualClock())
    exchange.planned = Planned(planned(*cards)) if cards else None
    return exchange


class PlainPlanner:
    """Plans by the rules alone, and remembers who it was told answered."""

    def __init__(self, demoted: Callable[[Card], str | None], verdict: Verdict | None = None) -> None:
        self._demoted = demoted
        self._verdict = verdict
        self.told: list[tuple[bytes | None, str]] = []

    def __call__(self, request: Request | EmbeddingRequest, caller: Caller, registry: Registry) -> Planned:
        made = plan(request, caller, registry, Rules(), Signals(self._demoted), self._verdict)
        return Planned(made, conversation=request.id.encode())

    def answered(self, planned: Planned, model: str) -> None:
        self.told.append((planned.conversation, model))


def move(exchange: Exchange, seconds: float) -> None:
    """Lets time pass for an exchange."""
    assert isinstance(exchange.clock, ManualClock)
    exchange.clock.advance(seconds)
