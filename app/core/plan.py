"""A plan is the ordered candidates for a request, each with its reason; the tail is the fallback chain."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.card import Card


@dataclass(frozen=True, slots=True)
class Candidate:
    """`stands_in_for` is the full id of the model that was asked for by name, when this is its fallback."""

    card: Card
    reason: str
    stands_in_for: str | None = None


@dataclass(frozen=True, slots=True)
class Excluded:
    """A model that was considered and left out, and why, in words for people."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    candidates: tuple[Candidate, ...]
    strategy: str
    excluded: tuple[Excluded, ...] = ()
    tier: str | None = None
    score: float | None = None
