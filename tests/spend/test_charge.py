"""What a finished attempt is charged: too little and a limit is passed, too much and honest requests are refused."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import errors
from app.core.errors import GatewayError
from app.core.events import Usage
from app.core.money import Price, Tokens, cost_nano
from app.spend.bounds import Bound, hold_nano
from app.spend.charge import LAG_SECONDS, NOTHING, Ended, charge, may_be_billed
from tests.spend.test_bounds import BOUNDS, PRICES

PRICE = Price(1_000, 1_000_000, 100, 1_250, 2_000)  # a prompt token is a nano-dollar, one of the answer a thousand
ROOMY = Bound(1_000, 10**9, 10**9, thinking="shown", speed=100)
BROKEN = errors.Broken("cut")


def test_what_the_upstream_told_is_what_is_charged() -> None:
    """Whatever happened besides."""
    usage = Usage(Tokens(900, 50, cache_read=100))
    for error in (None, BROKEN, asyncio.CancelledError()):
        told = charge(Ended(error, usage), Bound(1_000, 200, 200), PRICE)
        assert told == (800 + 10 + 50_000, usage.tokens, True)
    over = Usage(Tokens(5_000, 500))
    assert charge(Ended(None, over), Bound(1_000, 200, 200), PRICE).nano == 505_000, "a bill above the hold is a bill"


@pytest.mark.parametrize(
    "error",
    [
        errors.Refused("no connection"),
        errors.ServerFault("500"),
        errors.Busy("529"),
        errors.Throttled("429"),
        errors.AccountFault("401"),
        errors.Rejected("400"),
        errors.ContextLengthExceeded("too long"),
        errors.UnsupportedParameter("cannot"),
        errors.TimedOut("its own", phase="upstream"),
    ],
)
def test_what_was_never_answered_is_free(error: GatewayError) -> None:
    """An error status is not billed; once an answer has begun, the same error does not undo it."""
    assert charge(Ended(error, streamed=True), ROOMY, PRICE) == NOTHING
    assert charge(Ended(error, streamed=True, begun=True, seen_bytes=5), ROOMY, PRICE).nano > 0
    assert charge(Ended(error, streamed=True, prompt=Tokens(900)), ROOMY, PRICE).nano > 900


@pytest.mark.parametrize(
    "error",
    [
        BROKEN,
        errors.TimedOut("late", phase="first_token"),
        errors.OutOfTime("late", phase="total"),
        errors.BadReply("html"),
        errors.Incomplete("no reason"),
        errors.Truncated("dropped"),
        errors.ClientGone("left"),
        errors.InternalError("ours"),
        asyncio.CancelledError(),
        GeneratorExit(),
        None,
    ],
)
def test_what_may_be_on_the_bill_is_charged(error: BaseException | None) -> None:
    assert may_be_billed(Ended(error))
    assert charge(Ended(error, streamed=True), ROOMY, PRICE).nano > 0


def test_a_call_without_a_stream_that_is_cut_costs_its_hold() -> None:
    """Its server learns only at the end that nobody listens, and finishes."""
    limit = Bound(1_000, 200, 200, cache="1h")
    assert charge(Ended(BROKEN, seconds=0.1), limit, PRICE).nano == hold_nano(limit, PRICE) == 202_000


def test_a_stream_that_is_cut_costs_what_can_have_been_made() -> None:
    """500 bytes came, nothing waited unread: 500 tokens, and two seconds at 100 tokens each."""
    ended = Ended(BROKEN, streamed=True, begun=True, seen_bytes=500, seconds=60, unread_seconds=0)
    owed = charge(ended, ROOMY, PRICE)
    assert LAG_SECONDS == 2 and owed.tokens == Tokens(1_000, 700) and owed.nano == 1_000 + 700_000
    assert not owed.exact


def test_what_nobody_read_may_have_been_made_all_the_same() -> None:
    """A client that takes nothing for ten seconds does not keep its model from writing on."""
    ended = Ended(BROKEN, streamed=True, begun=True, seen_bytes=500, seconds=60, unread_seconds=10)
    assert charge(ended, ROOMY, PRICE).tokens.completion == 500 + 1_200
    unknown = ended._replace(unread_seconds=math.inf)
    assert charge(unknown, ROOMY, PRICE).tokens.completion == 6_200, "62 seconds at full speed"
    assert charge(ended._replace(seconds=3), ROOMY, PRICE).tokens.completion == 500, "5 seconds at full speed"


def test_hidden_thinking_is_charged_by_the_clock() -> None:
    ended = Ended(BROKEN, streamed=True, begun=True, seen_bytes=1, seconds=10, unread_seconds=0)
    assert charge(ended, ROOMY._replace(thinking="hidden"), PRICE).tokens.completion == 1_200
    assert charge(ended, ROOMY._replace(thinking="silent", choices=2), PRICE).tokens.completion == 2_400


def test_a_silent_thinker_that_had_not_begun_may_think_to_the_end() -> None:
    """A server that sends nothing while it thinks does not notice that nobody listens."""
    early = Ended(asyncio.CancelledError(), streamed=True, seconds=1, unread_seconds=0)
    limit = Bound(1_000, 30_000, 30_000, speed=100, thinking="silent")
    assert charge(early, limit, PRICE).tokens.completion == 30_000
    assert charge(early, limit._replace(thinking="hidden"), PRICE).tokens.completion == 300


def test_the_prompt_costs_what_was_told_at_the_start() -> None:
    """Claude says so in its first event: who leaves early pays the cached price for what was cached."""
    prompt = Tokens(900, cache_read=800, cache_write=50)
    ended = Ended(BROKEN, streamed=True, begun=True, prompt=prompt, seen_bytes=10, seconds=0, unread_seconds=0)
    owed = charge(ended, ROOMY, PRICE)
    assert owed.tokens == Tokens(900, 200, cache_read=800, cache_write=50)
    assert owed.nano == math.ceil((50 * 1_000 + 800 * 100 + 50 * 1_250) / 1_000) + 200_000


def test_an_answer_without_usage_costs_what_came_of_it() -> None:
    """Some servers never say. An estimate of ours is no word of theirs."""
    ended = Ended(None, Usage(Tokens(5, 5), estimated=True), streamed=True, begun=True, seen_bytes=500)
    assert charge(ended, ROOMY, PRICE).tokens == Tokens(1_000, 700)
    whole = ended._replace(usage=None, streamed=False)
    assert charge(whole, ROOMY, PRICE).tokens.completion == 700
    assert charge(whole, Bound(1_000, 30, 30, thinking="silent"), PRICE).tokens.completion == 30


def test_calibrated_charges_are_estimates() -> None:
    ended = Ended(BROKEN, streamed=True, begun=True, seen_bytes=400, seconds=60)
    assert charge(ended, ROOMY, PRICE, calibrated=True).tokens == Tokens(1_000, 100)
    assert charge(ended, ROOMY._replace(thinking="silent"), PRICE, calibrated=True).tokens.completion == 100


ERRORS = st.sampled_from([None, BROKEN, errors.Refused("no"), errors.Busy("529"), asyncio.CancelledError()])
ENDS = st.builds(
    Ended,
    error=ERRORS,
    usage=st.none(),
    prompt=st.none(),
    streamed=st.booleans(),
    begun=st.booleans(),
    seen_bytes=st.integers(0, 5_000),
    seconds=st.floats(0, 1_000) | st.just(math.inf),
    unread_seconds=st.floats(0, 1_000) | st.just(math.inf),
)


@given(ENDS, BOUNDS, PRICES, st.booleans())
def test_never_more_than_the_hold_and_never_less_than_what_came(
    ended: Ended, limit: Bound, price: Price, calibrated: bool
) -> None:
    """A cut answer whose usage nobody told."""
    owed = charge(ended, limit, price, calibrated=calibrated)
    assert 0 <= owed.nano <= hold_nano(limit, price)
    if may_be_billed(ended):
        assert owed.nano >= cost_nano(owed.tokens, price)


@given(
    st.floats(0, 100),
    st.floats(0, LAG_SECONDS),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["shown", "hidden", "silent"]),
    st.integers(1, 3),
)
def test_no_stream_of_a_server_as_stated_costs_more_than_is_charged(
    seconds: float, lag: float, pace: float, unread: float, thinking: str, choices: int
) -> None:
    """It makes at most so many tokens a second, goes on for at most the lag, and each token that came has a byte."""
    limit = Bound(0, 20_000 * choices, 20_000, choices, thinking=thinking, speed=500)
    rate = pace * limit.speed * choices
    made = min(limit.completion_tokens, int(rate * (seconds + lag)))
    unread_seconds = unread * seconds
    came = min(made, int(rate * (seconds - unread_seconds))) if thinking == "shown" else 0
    ended = Ended(BROKEN, None, True, True, None, came, seconds, unread_seconds)
    assert charge(ended, limit, PRICE).tokens.completion >= made - 1
