"""The one error a client is told when nobody could answer, from everything that was tried."""

from __future__ import annotations

from collections.abc import Callable, Collection

from app.core.errors import (
    AccountFault,
    Again,
    Blame,
    Busy,
    GatewayError,
    Overloaded,
    Throttled,
    TimedOut,
    UpstreamFailed,
    UpstreamFault,
    UpstreamRateLimited,
    UpstreamStumbled,
    UpstreamTimeout,
)
from app.core.plan import Candidate
from app.upstreams.health import THROTTLE_SECONDS

Failures = list[tuple[Candidate, GatewayError]]


def _unknown(candidate: Candidate) -> bool:
    return False


def conclusion(
    failures: Failures,
    left: Collection[object] = (),
    well: Callable[[Candidate], bool] = _unknown,
) -> GatewayError:
    """The error for the client, from everything that was tried, what was `left` untried, and who is `well` anyway."""
    last = failures[-1][1]
    faults = [(candidate, error) for candidate, error in failures if isinstance(error, UpstreamFault)]
    if not faults or (last.blame is not Blame.UPSTREAM and last.again is Again.NEVER):
        return last
    tried = "; ".join(f"{candidate.card.id}: {error.kind}" for candidate, error in faults)
    errors = [error for _, error in faults]
    soonest = min((error.retry_after for error in errors if error.retry_after is not None), default=None)
    if all(isinstance(error, Throttled) for error in errors):
        return UpstreamRateLimited(
            f"Every model that could answer is throttled. Tried {tried}.", retry_after=soonest or THROTTLE_SECONDS
        )
    if all(isinstance(error, TimedOut) for error in errors):
        return UpstreamTimeout(f"No model answered in time. Tried {tried}.")
    if all(isinstance(error, Busy) for error in errors):
        return Overloaded(f"Every model that could answer is overloaded. Tried {tried}.", retry_after=soonest or 1)
    who = "The models that were tried" if left else "Every model that could answer"
    chance = all(well(candidate) and not isinstance(error, AccountFault) for candidate, error in faults)
    kind = UpstreamStumbled if chance else UpstreamFailed
    return kind(f"{who} failed. Tried {tried}.", retry_after=soonest)
