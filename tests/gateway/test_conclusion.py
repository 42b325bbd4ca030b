"""What a client is told when nobody could answer: whether to wait, to come again, to give up, or what to change."""

from __future__ import annotations

import pytest

from app.core.errors import (
    AccountFault,
    Busy,
    ContextLengthExceeded,
    GatewayError,
    InternalError,
    OutOfTime,
    Overloaded,
    Refused,
    Rejected,
    ServerFault,
    Throttled,
    TimedOut,
    Truncated,
    UnsupportedParameter,
    UpstreamFailed,
    UpstreamFault,
    UpstreamRateLimited,
    UpstreamTimeout,
)
from app.core.plan import Candidate
from app.gateway.conclusion import conclusion
from app.upstreams.health import THROTTLE_SECONDS
from tests.core.nouns import card, paid
from tests.gateway.walks import walk

A, B, C = card("gpu/a"), card("gpu/b"), paid("claude/c")
CANDIDATES = [Candidate(each, "it can do this") for each in (A, B, C)]
BUSY, BUSY_LATER = Busy("503"), Busy("503", retry_after=7)
FULL, FULL_LATER = Throttled("429", retry_after=3), Throttled("429", retry_after=9)
LATE, LONG_PROMPT, HOT = TimedOut("late", phase="idle"), ContextLengthExceeded("long"), Rejected("too hot")
NO_TOOLS, DEADLINE, OURS = UnsupportedParameter("no"), OutOfTime("deadline", phase="total"), InternalError("ours")


@pytest.mark.parametrize(
    ("error", "tries", "may_retry"),
    [
        (ServerFault("500"), 1, None),
        (ServerFault("500"), 6, False),
        (Refused("no"), 1, False),
        (AccountFault("401"), 1, False),
    ],
)
async def test_clients_may_try_again_where_it_was_chance(
    error: GatewayError, tries: int, may_retry: bool | None
) -> None:
    """One call of ten may fail: then three in a row do so once in a thousand requests, and the next will go well. What
    is down stays down."""
    run = walk((A, [error]), (B, [error]), (C, [error]))
    for _ in range(tries):
        run.again()
        failed = await run.fails()
    assert failed.client_may_retry is may_retry


@pytest.mark.parametrize(
    ("failed", "kind", "retry_after"),
    [
        ([FULL_LATER], UpstreamRateLimited, 9),
        ([FULL_LATER, FULL, Throttled("429")], UpstreamRateLimited, 3),
        ([Throttled("429")], UpstreamRateLimited, THROTTLE_SECONDS),
        ([LATE, LATE], UpstreamTimeout, None),
        ([BUSY, BUSY], Overloaded, 1),
        ([BUSY, BUSY_LATER], Overloaded, 7),
        ([FULL, BUSY_LATER], UpstreamFailed, 3),
        ([FULL, LATE], UpstreamFailed, 3),
        ([Refused("no"), LATE], UpstreamFailed, None),
        ([Truncated("cut")], UpstreamFailed, None),
        ([BUSY, LONG_PROMPT], Overloaded, 1),
        ([LONG_PROMPT, Refused("no")], UpstreamFailed, None),
        ([NO_TOOLS, BUSY], Overloaded, 1),
        ([AccountFault("401"), AccountFault("402")], UpstreamFailed, None),
    ],
)
def test_what_was_tried_makes_one_error(
    failed: list[GatewayError], kind: type[GatewayError], retry_after: float | None
) -> None:
    """429 makes a client wait, 503 come again, 502 give up: the sum decides, and says what was tried."""
    error = conclusion(list(zip(CANDIDATES, failed, strict=False)))
    assert (type(error), error.retry_after) == (kind, retry_after)
    for candidate, each in zip(CANDIDATES, failed, strict=False):
        if isinstance(each, UpstreamFault):
            assert f"{candidate.card.id}: {each.kind}" in error.message


@pytest.mark.parametrize(
    "failed",
    [
        [HOT],
        [BUSY, HOT],
        [LATE, DEADLINE],
        [LONG_PROMPT],
        [NO_TOOLS],
        [LONG_PROMPT, NO_TOOLS],
        [BUSY, InternalError("x")],
    ],
)
def test_what_only_the_caller_can_change_is_said_as_it_is(failed: list[GatewayError]) -> None:
    """The field to change, the prompt to shorten, the deadline to raise: not a list of upstreams."""
    assert conclusion(list(zip(CANDIDATES, failed, strict=False))) is failed[-1]
