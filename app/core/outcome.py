"""What was learnt about an answer, then or later: one quality signal, many sources, `unknown` when none spoke.

Also what can be learnt from: what was seen of an answer as it passed, and where in which conversation it was asked for.
Both hold no text.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.core.value import value


@value(frozen=True, slots=True)
class Outcome:
    """`value` 0 (useless) to 1; `weight` says how much the source knows; `at` in seconds since 1970, UTC."""

    source: str
    value: float
    weight: float
    at: float


@value(frozen=True, slots=True)
class Noticed:
    """What was seen of an answer while it passed. `parses`: what had to be JSON is, and has what its schema requires;
    `compiles`: code in it can be parsed; None where there was nothing of the kind. `limited`: the caller had set a
    bound on its length. `bare`: it ended with neither text nor a call."""

    refused: bool = False
    repeating: bool = False
    bare: bool = False
    limited: bool = False
    parses: bool | None = None
    compiles: bool | None = None


@value(frozen=True, slots=True)
class Ask:
    """What a person asked, and where. `place` is a digest of whose conversation it is and of all that was said before;
    `before` is the place of the ask before it, None for the first. `same` is a digest of the ask, `numbers` of the
    numbers in it, `vector` its embedding, one signed byte per dimension. `objects`: it begins by saying that the last
    answer was wrong. `carried`: nothing new was asked; tools or the client go on working on it."""

    place: str
    before: str | None
    same: str
    numbers: str
    vector: bytes = b""
    objects: bool = False
    carried: bool = False


def quality(outcomes: Iterable[Outcome]) -> float | None:
    """The weighted mean; None when nothing spoke."""
    total, weight = weighed(outcomes)
    return None if weight <= 0 else total / weight


def weighed(outcomes: Iterable[Outcome]) -> tuple[float, float]:
    """The sum of what was said, each by its weight, and that of the weights."""
    total = weight = 0.0
    for outcome in outcomes:
        total += outcome.value * outcome.weight
        weight += outcome.weight
    return total, weight
