"""What the attempt that runs has come to so far: tokens, and what they are charged.

What the upstream said counts; where it said nothing, tokens are estimated from bytes and marked so. Where money is held
for the attempt, what is charged then is the most it can be billed, because a limit must hold all the same.
"""

from __future__ import annotations

from typing import Final

from app.core.events import Usage
from app.core.money import Tokens, cost_nano
from app.core.request import Request
from app.core.tokens import estimate
from app.gateway.exchange import Exchange
from app.spend.charge import Ended, charge, may_be_billed

LENGTH: Final = "length"


def charge_attempt(exchange: Exchange, error: BaseException | None) -> None:
    """Notes what the attempt that has just ended came to, if it came to anything."""
    running = exchange.running
    if running.usage is None and running.first_content is None:
        if exchange.account.hold is None:
            return
        if not may_be_billed(_ended(exchange, None, error)):
            running.charge_nano = 0
            return
    priced_usage(exchange, error)


def priced_usage(exchange: Exchange, error: BaseException | None = None) -> Usage:
    """The usage of the answer, with its price; the same however often it is asked for."""
    running = exchange.running
    if running.priced:
        assert running.usage is not None
        return running.usage
    usage = running.usage or Usage(_estimate(exchange), estimated=True)
    running.charge_nano = _charge(exchange, usage, error)
    running.usage, running.priced = usage, True
    usage.stopped = exchange.stopped or ("budget" if exchange.account.lowered and exchange.finish == LENGTH else None)
    usage.cost_nano = None if running.charge_nano is None else running.charge_nano + exchange.earlier_nano
    return usage


def _charge(exchange: Exchange, usage: Usage, error: BaseException | None) -> int | None:
    hold, candidate = exchange.account.hold, exchange.running.candidate
    if hold is not None and usage.estimated:
        return charge(_ended(exchange, usage, error), hold.bound, hold.price, calibrated=hold.calibrated).nano
    price = hold.price if hold is not None else None if candidate is None else candidate.card.price
    return None if price is None else cost_nano(usage.tokens, price)


def _ended(exchange: Exchange, usage: Usage | None, error: BaseException | None) -> Ended:
    now, running = exchange.clock.monotonic(), exchange.running
    return Ended(
        error,
        usage,
        streamed=exchange.streams,
        begun=running.first_content is not None,
        prompt=running.prompt,
        seen_bytes=running.out_bytes,
        seconds=now - running.started,
        unread_seconds=now - running.read_at,
    )


def _estimate(exchange: Exchange) -> Tokens:
    if isinstance(exchange.request, Request):
        return Tokens(prompt=estimate(exchange.request.input_bytes), completion=estimate(exchange.running.out_bytes))
    return Tokens()
