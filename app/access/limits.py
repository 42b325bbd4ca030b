"""How often a key may call: what its limits ask of the store for one request, what to tell a caller that has reached
one, and the headers that say how they stand.

A limit of so many a minute is a GCRA rate: all of a minute may come at once, and it flows back evenly. Tokens are taken
for the prompt and what its answer is expected to be, then corrected by what was used; a request that alone would need
more than a whole minute's tokens is refused at once, as OpenAI does. The arithmetic is the store's, on its clock.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Final

from app.core.caller import Caller
from app.core.errors import RateLimited, TooLargeForRate
from app.core.spending import Rate, RateState, Seats
from app.store import layout
from app.store.ledger import Limited, NoSeat

MINUTE_US: Final = 60_000_000
SEAT_SECONDS: Final = 1.0
"""When to ask again for a seat: nobody knows when a running answer ends."""
DEBT_MINUTES: Final = 10
"""No wrong guess at what a request needs keeps its key out for longer."""
REQUESTS: Final = "requests"
TOKENS: Final = "tokens"
_ROWS: Final = {
    kind: tuple(f"x-ratelimit-{name}-{kind}".encode() for name in ("limit", "remaining", "reset"))
    for kind in (REQUESTS, TOKENS)
}

Headers = list[tuple[bytes, bytes]]


def rates_of(caller: Caller, prompt_tokens: int, completion_tokens: int, *, guessed: bool = False) -> tuple[Rate, ...]:
    """What one request of this caller asks of its limits; nothing where it has none. `guessed`: the caller named no
    length of the answer, so that alone must not make its request too large."""
    tokens = max(1, prompt_tokens + completion_tokens)
    if guessed and caller.tokens_per_minute is not None:
        tokens = max(prompt_tokens, min(tokens, caller.tokens_per_minute))
    rates: tuple[Rate, ...] = ()
    if (limit := caller.requests_per_minute) is not None:
        rates = (_rate(REQUESTS, caller, limit, 1),)
    if (limit := caller.tokens_per_minute) is not None:
        rates = (*rates, _rate(TOKENS, caller, limit, tokens))
    return rates


def _rate(kind: str, caller: Caller, limit: int, cost: int) -> Rate:
    """Rounded so that a minute never brings more than the limit; beyond a million a minute, a little less."""
    return Rate(kind, layout.key("rate", f"{caller.key_id}:{kind}"), -(-MINUTE_US // limit), limit, cost)


def seats_of(caller: Caller, request_id: str) -> Seats | None:
    """A seat for one request, to be made once and kept until it is given back: callers may repeat an id of theirs, and
    two requests must not share a seat."""
    if caller.concurrency is None:
        return None
    holder = f"{request_id}:{secrets.token_hex(4)}"
    return Seats(layout.key("seats", str(caller.key_id)), caller.concurrency, holder)


def unused(rates: Sequence[Rate], tokens_used: int) -> list[tuple[Rate, int]]:
    """The tokens to give back when a request is over; below zero where it used more than it had asked for, so that the
    next ones wait for that. A request itself is not given back."""
    return [
        (rate, units)
        for rate in rates
        if rate.kind == TOKENS and (units := max(rate.cost - tokens_used, -DEBT_MINUTES * rate.burst))
    ]


def error_of(refused: Limited | NoSeat) -> RateLimited:
    """Names the limit and what to do."""
    if isinstance(refused, NoSeat):
        return RateLimited(
            f"This key may have {_count(refused.most, 'request')} running at a time, and has. Wait until one ends.",
            retry_after=SEAT_SECONDS,
        )
    rate, wait = refused.rate, refused.retry_after_seconds
    limit = f"This key may use {_count(rate.limit, rate.kind[:-1])} a minute"
    if math.isinf(wait):
        return TooLargeForRate(
            f"Request too large. {limit}, and this request alone may need more. Shorten it, or lower max_tokens.",
            rates=refused.rates,
        )
    return RateLimited(
        f"{limit}, and has none left. Try again in {duration(wait)}.", retry_after=wait, rates=refused.rates
    )


def header_rows(states: Sequence[RateState]) -> Headers:
    """`x-ratelimit-*` as OpenAI sends them."""
    rows: Headers = []
    for state in states:
        limit, remaining, reset = _ROWS[state.kind]
        rows += (
            (limit, b"%d" % state.limit),
            (remaining, b"%d" % state.remaining),
            (reset, duration(state.reset_seconds).encode()),
        )
    return rows


def duration(seconds: float) -> str:
    """As Go writes them, which OpenAI's headers are in: `0s`, `12ms`, `8.64s`, `6m0s`, `1h0m0s`. Rounded up, so that
    who waits that long has waited long enough."""
    total_ms = max(0, math.ceil(round(seconds * 1_000, 3)))
    if 0 < total_ms < 1_000:
        return f"{total_ms}ms"
    minutes, ms = divmod(total_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    rest = f"{ms / 1_000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{hours}h{minutes}m{rest}" if hours else f"{minutes}m{rest}" if minutes else rest


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
