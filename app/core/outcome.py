"""What was learnt about an answer, then or later: one quality signal, many sources, `unknown` when none spoke."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """`value` 0 (useless) to 1; `weight` says how much the source knows; `at` in seconds since 1970, UTC."""

    source: str
    value: float
    weight: float
    at: float


def quality(outcomes: Iterable[Outcome]) -> float | None:
    """The weighted mean; None when nothing spoke."""
    heard = tuple(outcomes)
    total = sum(outcome.weight for outcome in heard)
    return None if total <= 0 else sum(outcome.value * outcome.weight for outcome in heard) / total
