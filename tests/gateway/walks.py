"""One request over candidates that each play a script, with everything it did written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest

from app.core.card import Card
from app.core.clock import ManualClock
from app.core.errors import GatewayError
from app.core.events import Event, Fault, Text, is_content
from app.core.plan import Candidate
from app.gateway.attempts import Attempts
from app.gateway.exchange import Exchange
from tests.core.nouns import chat, terms
from tests.gateway.fakes import Script, Step, Told, exchange_of


@dataclass
class Walk:
    """One request over candidates that each play their script."""

    candidates: dict[str, tuple[Card, Script]]
    max_attempts: int = 3
    trigger: str | None = None
    exchange: Exchange = field(init=False)
    denials: dict[str, list[GatewayError | None]] = field(default_factory=dict)
    entered: list[tuple[str, bool]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    seen: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.health = Told(self.clock)
        self.attempts = Attempts(self.health, self.max_attempts, self.sleep, lambda plan, failures: self.trigger)
        self.again()

    def again(self, deadline: float | None = None) -> None:
        """Another request to the same gateway."""
        request = chat(terms=terms(deadline=deadline))
        self.exchange = exchange_of(*(card for card, _ in self.candidates.values()), request=request, clock=self.clock)
        self.seen = []

    def script(self, card: Card) -> Script:
        return self.candidates[card.id][1]

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    def open(self, candidate: Candidate) -> AsyncGenerator[Event, None]:
        return self.script(candidate.card).play()

    def items(self) -> AsyncGenerator[Event, None]:
        return self.attempts.walk(self.exchange, self.enter, self.open, is_content, Fault)

    async def enter(self, candidate: Candidate, at_last: bool) -> None:
        """What `denials` has for this model, one for each time it is asked; the last one stays."""
        self.entered.append((candidate.card.id, at_last))
        await asyncio.sleep(0)
        denials = self.denials.get(candidate.card.id, [None])
        denial = denials.pop(0) if len(denials) > 1 else denials[0]
        if denial is not None:
            raise denial

    async def run(self) -> list[Event]:
        async for event in self.items():
            self.seen.append(event)
        return self.seen

    async def fails(self) -> GatewayError:
        with pytest.raises(GatewayError) as raised:
            await self.run()
        assert self.seen == []
        return raised.value

    @property
    def tried(self) -> list[str]:
        return [attempt.model for attempt in self.exchange.attempts]

    @property
    def outcomes(self) -> list[str]:
        return [attempt.outcome for attempt in self.exchange.attempts]

    def is_accounted_for(self) -> None:
        """Every attempt is noted once, told to health once, and closed."""
        assert self.health.begun == [id_ for id_, _ in self.health.outcomes]
        assert self.tried == self.health.begun[-len(self.tried) :]
        assert all(script.opened == script.closed for _, script in self.candidates.values())


def walk(*scripts: tuple[Card, Script | Sequence[Step]], max_attempts: int = 3) -> Walk:
    """A walk over these models in order; a list of steps is played by every attempt."""
    made = {card.id: (card, script if isinstance(script, Script) else Script(script)) for card, script in scripts}
    return Walk(made, max_attempts)


def text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))
