"""Under `cloud: emergency` paid upstreams may be used only when something is wrong: on which of five triggers. Pure.

Who watches the upstreams hands in the facts; alerts on how often it happens are left to telemetry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from app.core.card import Card
from app.core.errors import (
    AccountFault,
    ContextLengthExceeded,
    GatewayError,
    Refused,
    Truncated,
    UnsupportedParameter,
)
from app.core.plan import Candidate

FAILURES: Final = "3 local failures in a row"
QUALITY: Final = "local quality below its baseline"
SLOW: Final = "local first token is late"
GONE: Final = "local upstream gone"
UNABLE: Final = "no local model can do it"

FAILURES_IN_A_ROW: Final = 3
QUALITY_LEAST: Final = 0.9  # of the baseline
FIRST_TOKEN_MOST: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of the local models lately. None is unknown, and never an emergency. `reachable`: some local
    upstream answers; `loadable`: some local model that is for this could be loaded."""

    failures_in_a_row: int = 0
    quality: float | None = None
    baseline: float | None = None
    first_token: float | None = None
    reachable: bool = True
    loadable: bool = True


def trigger(facts: Facts) -> str | None:
    """The trigger that allows paid upstreams now, the plainest first; None when nothing is wrong."""
    if not facts.reachable:
        return GONE
    if not facts.loadable:
        return UNABLE
    if facts.failures_in_a_row >= FAILURES_IN_A_ROW:
        return FAILURES
    if facts.first_token is not None and facts.first_token > FIRST_TOKEN_MOST:
        return SLOW
    if facts.quality is not None and facts.baseline is not None and facts.quality < QUALITY_LEAST * facts.baseline:
        return QUALITY
    return None


CANNOT: Final = (AccountFault, UnsupportedParameter, ContextLengthExceeded, Truncated)
"""What a model says that is missing there, or not able."""


def found_out(cards: Iterable[Card], failures: Iterable[tuple[Candidate, GatewayError]]) -> str | None:
    """The trigger that a request meets by itself: the upstream of each of these local models is gone, or what is left
    of them cannot do it."""
    gone, unable = set[str](), set[str]()
    for candidate, error in failures:
        if isinstance(error, Refused):
            gone.add(candidate.card.upstream)
        elif isinstance(error, CANNOT):
            unable.add(candidate.card.id)
    local = [card for card in cards if card.upstream not in gone]
    if not local:
        return GONE
    return UNABLE if all(card.id in unable for card in local) else None
