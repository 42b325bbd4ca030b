"""Seats at upstreams: a request takes one before it enters an attempt, and waits in line where there is none.

A seat comes before money, so that nobody holds money while he waits. Who waits goes on to another upstream after a
moment where that costs no more and is as able; to a dearer or weaker one only when he has waited as long as anybody
may, as if the first had failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from app.config.settings import UpstreamSettings
from app.core.errors import GatewayError, Shed
from app.core.plan import Candidate
from app.core.request import Terms
from app.gateway.exchange import Exchange
from app.gateway.turns import Enter
from app.upstreams.gate import Gate
from app.upstreams.gates import Ceiling

WAIT_SECONDS: Final = 30.0
"""The most a request waits in all lines together."""
MOVE_SECONDS: Final = 2.0
"""After so long it rather goes to an upstream that is as good."""
AS_ABLE: Final = 0.05
"""So much less expected success still counts as able."""


@dataclass(frozen=True, slots=True)
class Seating:
    """`gates` are the upstreams' that have one. `dearer_after`: the seconds in line after which a paid upstream may
    relieve a free one, where an operator said so. `shed` is told the cause when a request finds no seat anywhere."""

    gates: Mapping[str, Gate] = field(default_factory=lambda: MappingProxyType({}))
    wait_seconds: float = WAIT_SECONDS
    dearer_after: Callable[[], float | None] = lambda: None
    shed: Callable[[str], None] = lambda cause: None

    def before(self, enter: Enter, exchange: Exchange) -> Enter:
        """Takes a seat, then asks for the rest; whom that keeps out has none. Raises `Shed` where there is no seat."""
        if not self.gates:
            return enter
        told = False

        async def seated(candidate: Candidate, at_last: bool) -> None:
            nonlocal told
            gate = self.gates.get(candidate.card.upstream)
            if gate is None:
                await enter(candidate, at_last)
                return
            if not gate.enter():
                try:
                    await self._wait(gate, candidate, at_last, exchange)
                except Shed as error:
                    exchange.kept_out[candidate.card.id] = error.code
                    if at_last and not told:
                        told = True
                        self.shed(error.cause)
                    raise
            try:
                await enter(candidate, at_last)
            except BaseException as error:  # whatever it was: the seat must not be lost
                gate.leave()
                if isinstance(error, GatewayError):
                    exchange.kept_out[candidate.card.id] = error.code
                raise

        return seated

    def begins(self, candidate: Candidate, exchange: Exchange) -> None:
        """The first content has come."""
        gate = self.gates.get(candidate.card.upstream)
        if gate is not None and exchange.streams:  # else the time tells of the answer's length
            gate.first_token(candidate.card.id, exchange.attempt_seconds())

    def ended(self, candidate: Candidate, exchange: Exchange, error: BaseException | None) -> None:
        """The attempt is over, and its seat free."""
        gate = self.gates.get(candidate.card.upstream)
        if gate is not None:
            gate.ended(exchange.attempt_seconds(), error)

    async def _wait(self, gate: Gate, candidate: Candidate, at_last: bool, exchange: Exchange) -> None:
        began = exchange.clock.monotonic()
        patience = math.inf if at_last else self._patience(candidate, exchange)
        try:
            await gate.wait(
                rank(exchange.request.terms),
                min(patience, self.wait_seconds - exchange.queued, exchange.remaining()),
            )
        finally:
            exchange.queues(exchange.clock.monotonic() - began)

    def _patience(self, candidate: Candidate, exchange: Exchange) -> float:
        """How long to stand in this line, for what comes next."""
        plan, here = exchange.plan, candidate.card.upstream
        following = () if plan is None else _behind(candidate, plan.candidates)
        other = next((each for each in following if each.card.upstream != here), None)
        if other is None:
            return math.inf
        if _costs_more(candidate, other):
            after = self.dearer_after() if candidate.card.local else None
            return math.inf if after is None else after
        return MOVE_SECONDS if _is_as_able(candidate, other) else math.inf


def rank(terms: Terms) -> int:
    """Its place in every line: interactive, batch, shadow."""
    if terms.arm is not None:
        return 2
    return 1 if terms.priority == "batch" else 0


def ceilings(upstreams: Mapping[str, UpstreamSettings]) -> dict[str, Ceiling]:
    """What each upstream should get at most at a time. One that is only the usual for its kind is where to begin."""
    return {name: Ceiling(each.max_concurrency, each.ceiling_said) for name, each in upstreams.items()}


def _behind(candidate: Candidate, candidates: Iterable[Candidate]) -> Iterable[Candidate]:
    rest = iter(candidates)
    for each in rest:
        if each is candidate:
            break
    return rest


def _costs_more(candidate: Candidate, other: Candidate) -> bool:
    if other.card.local:
        return False
    now, then = candidate.estimate.cost_nano, other.estimate.cost_nano
    return candidate.card.local or then is None or (now is not None and then > now)


def _is_as_able(candidate: Candidate, other: Candidate) -> bool:
    now, then = candidate.estimate.success, other.estimate.success
    return now is None or then is None or then >= now - AS_ABLE
