"""The least pace that is asked of a stream: one that starves is given up, before anything of it is released where that
shows soon enough.

The first tokens are held back until they have come at that pace; until then another model can take over unnoticed.
Only time that the upstream is waited for counts, so a client that reads slowly starves nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from app.core.errors import TimedOut
from app.core.events import Event, Finish, Reasoning, Text, ToolCall, is_content
from app.core.tokens import estimate

HELD_TOKENS: Final = 16
"""So many tokens are held back at first, or all there are of a shorter answer."""
HELD_BYTES: Final = 65_536
PATIENCE_SECONDS: Final = 2.0
"""No pace is measured over less: every server pauses for a moment now and then."""


class Starved(TimedOut):
    """The upstream sends less than it must."""

    def __init__(self) -> None:
        super().__init__("The upstream sent its answer more slowly than it may.", phase="pace")


async def paced(events: AsyncGenerator[Event, None], least: float) -> AsyncGenerator[Event, None]:
    """The same events. From the first content on, every `window` brings its tokens (`least` a second), or ends in
    `Starved`."""
    time = asyncio.get_running_loop().time
    window = max(PATIENCE_SECONDS, HELD_TOKENS / least)
    held: list[Event] = []
    begun = over = released = False
    left, tokens, size = window, 0, 0
    async with contextlib.aclosing(events):
        while True:
            since = time()
            try:
                async with asyncio.timeout(left if begun and not over else None):
                    event = await anext(events, None)
            except TimeoutError:
                raise Starved from None
            if event is None:
                break
            if not begun and is_content(event):
                begun, since = True, time()
            left, tokens, size = left - (time() - since) * begun, tokens + tokens_of(event), size + weight_of(event)
            over = over or isinstance(event, Finish)
            if begun and not (over or released) and tokens < HELD_TOKENS and size < HELD_BYTES:
                held.append(event)
                continue
            if begun and (not released or tokens >= least * window):
                left, tokens, released = window, 0, True
            for early in held:
                yield early
            held.clear()
            yield event
    for early in held:
        yield early


def tokens_of(event: Event) -> int:
    """About how many tokens a piece is: some upstreams send several at a time."""
    match event:
        case Text():
            return max(event.pieces, estimate(len(event.text)))
        case Reasoning() | ToolCall():
            return max(1, estimate(weight_of(event)))
        case _:
            return 0


def weight_of(event: Event) -> int:
    match event:
        case Text(text=piece) | Reasoning(text=piece) | ToolCall(arguments=piece):
            return len(piece)
        case _:
            return 0
