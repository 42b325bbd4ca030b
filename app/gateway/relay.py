"""Passes an answer's events on, and notes what the record needs: who served, first content, finish, usage and cost.

Usage is always the last event a caller sees: what the upstream said, or an estimate marked as such.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

from app.core.events import CONTENT, Event, Finish, Start, Text, ToolCall, Usage
from app.core.tokens import bytes_of
from app.gateway.account import Account
from app.gateway.charging import priced_usage
from app.gateway.exchange import Exchange

Extend = Callable[[Account], Awaitable[bool]]


async def relay(exchange: Exchange, events: AsyncGenerator[Event, None], extend: Extend) -> AsyncGenerator[Event, None]:
    """The same events, with `Start.served` and the price of `Usage` filled in. The first of them comes with the first
    content: an attempt holds back what is before it. An answer that outgrows what was held for it, and may not have
    more, ends here as one that reached its length. However it ends, `events` are closed."""
    account, noticing, monotonic = exchange.account, exchange.noticing, exchange.clock.monotonic
    try:
        async for event in events:
            running = exchange.running
            if running.first_content is None:
                running.first_content = monotonic()
            if noticing is not None:
                noticing.see(event)
            if isinstance(event, CONTENT):
                piece = event.arguments if isinstance(event, ToolCall) else event.text
                running.out_bytes += len(piece) if piece.isascii() else bytes_of(piece)
                running.out_pieces += (event.pieces if type(event) is Text else 1) if piece else 0
                running.read_at = monotonic()
                if account.outgrown(running.out_pieces, running.out_bytes) and not await _extended(exchange, extend):
                    ends = exchange.stop()
                    await events.aclose()  # at once: whoever reads slowly must not pay for what goes on meanwhile
                    for end in ends:
                        yield end
                    break
            elif isinstance(event, Start):
                event.served = exchange.served()
                if event.body is not None:
                    account.room = None  # all of it is here, and paid for
            elif isinstance(event, Finish):
                exchange.finished(event)
            elif isinstance(event, Usage):
                running.usage = event
                continue
            else:
                exchange.error = event.error
                yield event
                return
            yield event
    finally:
        await events.aclose()
    yield exchange.summed(priced_usage(exchange))


async def _extended(exchange: Exchange, extend: Extend) -> bool:
    """Whether all of the answer so far may be held for: what came at once may be more than one slice."""
    account, running, before = exchange.account, exchange.running, None
    while account.room != before and account.outgrown(running.out_pieces, running.out_bytes):
        before = account.room
        if not await extend(account):
            return False
    return True
