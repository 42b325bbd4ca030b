"""Passes an answer's events on, and notes what the record needs: who served, first content, finish, usage and cost.

Usage is always the last event a caller sees: what the upstream said, or an estimate marked as such.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from app.core.events import Event, Fault, Finish, Reasoning, Start, Text, ToolCall, Usage
from app.core.money import Tokens, cost_nano
from app.core.request import Request
from app.core.tokens import estimate
from app.gateway.exchange import Exchange


async def relay(exchange: Exchange, events: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
    """The same events, with `Start.served` and the price of `Usage` filled in. The first of them comes with the first
    content: an attempt holds back what is before it."""
    async for event in events:
        if exchange.first_content is None:
            exchange.first_content = exchange.clock.monotonic()
        if exchange.noticing is not None:
            exchange.noticing.see(event)
        match event:
            case Text(text=piece) | Reasoning(text=piece) | ToolCall(arguments=piece):
                exchange.out_bytes += size(piece)
            case Start():
                event.served = exchange.served()
            case Finish():
                exchange.finish = event.reason
            case Usage():
                exchange.usage = event
                continue
            case Fault():
                exchange.error = event.error
                yield event
                return
        yield event
    yield settled_usage(exchange)


def settled_usage(exchange: Exchange) -> Usage:
    """The usage of what has been answered so far, priced; estimated from bytes where the upstream did not say."""
    usage = exchange.usage or Usage(_estimate(exchange), estimated=True)
    card = exchange.candidate.card if exchange.candidate is not None else None
    if card is not None and card.price is not None:
        usage.cost_nano = cost_nano(usage.tokens, card.price)
    exchange.usage = usage
    return usage


def size(text: str) -> int:
    """Bytes of UTF-8; a lone surrogate counts as what it would be."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _estimate(exchange: Exchange) -> Tokens:
    assert isinstance(exchange.request, Request)
    return Tokens(prompt=estimate(exchange.request.input_bytes), completion=estimate(exchange.out_bytes))
