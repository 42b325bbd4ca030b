"""A plan is the ordered candidates for a request, each with its reason; the tail is the fallback chain."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from app.core.card import Card
from app.core.value import value
from app.core.verdict import Verdict

# Tuples, because a plan makes one of each per model, and frozen dataclasses cost three times as much to make.


class Estimate(NamedTuple):
    """What a candidate is expected to do: None is unknown. `success` is the expected quality, 0 to 1."""

    cost_nano: int | None = None
    first_token_seconds: float | None = None
    success: float | None = None


UNKNOWN = Estimate()


class Candidate(NamedTuple):
    """`stands_in_for` is the full id of the model that was asked for by name, when this is its fallback."""

    card: Card
    reason: str
    stands_in_for: str | None = None
    estimate: Estimate = UNKNOWN


@value(frozen=True, slots=True)
class Excluded:
    """A model that was considered and left out, and why, in words for people."""

    model: str
    reason: str


@value(frozen=True, slots=True)
class Plan:
    """`probability` is that with which the first candidate was chosen (below 1 where chance had a say); `arm` names the
    rollout arm the request is in; `trigger` what allowed a paid model in an emergency; `tokens` about how many were
    taken to go in and to come out; `previous` the full id of the model that served the conversation before, where it is
    among those that could. `reserve` are excluded ones that may follow once an emergency calls them up."""

    candidates: tuple[Candidate, ...]
    strategy: str
    excluded: tuple[Excluded, ...] = ()
    verdict: Verdict | None = None
    probability: float = 1.0
    arm: str | None = None
    trigger: str | None = None
    tokens: tuple[int, int] | None = None
    previous: str | None = None
    reserve: tuple[Candidate, ...] = ()

    @property
    def tier(self) -> str | None:
        return None if self.verdict is None else self.verdict.tier

    @property
    def score(self) -> float | None:
        return None if self.verdict is None else self.verdict.score

    def called_up(self, trigger: str) -> Plan:
        """The plan in an emergency that came, or was found out, after it had been made: the reserve follows."""
        there = {candidate.card.id for candidate in self.reserve}
        reserve = (candidate._replace(reason=f"emergency; {trigger}") for candidate in self.reserve)
        return replace(
            self,
            candidates=(*self.candidates, *reserve),
            excluded=tuple(left for left in self.excluded if left.model not in there),
            trigger=trigger,
            reserve=(),
        )
