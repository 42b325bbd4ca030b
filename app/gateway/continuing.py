"""Lets another model go on with a streamed answer that broke off, for callers who asked for that.

Not inside tool calls, demanded formats, or several choices at once: there is no text to go on with. The caller sees one
answer; its last chunk names the model that began it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from app.core.errors import Blame, GatewayError
from app.core.events import Event, Fault, Finish, Reasoning, Start, Text, ToolCall
from app.core.request import Request
from app.gateway.exchange import Exchange
from app.gateway.sessions import Ask

MOST: Final = 2
"""So often an answer is gone on with."""
SAID_MOST: Final = 1_048_576
"""Characters beyond which an answer is not kept for that."""


async def continuing(exchange: Exchange, ask: Ask) -> AsyncGenerator[Event, None]:
    """The answer, gone on with by others where it breaks off."""
    answer, times, fault = _Said(exchange), 0, None
    while True:
        broken: Fault | None = None
        try:
            async with contextlib.aclosing(ask()) as events:
                async for event in events:
                    if type(event) is Fault and times < MOST and answer.can_go_on(event.error):
                        broken = event
                        break
                    if (seen := answer.seen(event)) is not None:
                        yield seen
        except GatewayError:
            if fault is None:
                raise
            exchange.gave_up()
            yield fault
            return
        if broken is None:
            return
        fault, times = broken, times + 1
        exchange.continues(answer.text())


class _Said:
    """What the caller has of the answer."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._start: Start | None = None
        self._pieces: list[str] = []
        self._room = SAID_MOST
        self._plain = True
        self._joint = False  # between what one model said and what the next says

    def text(self) -> str:
        self._joint = True
        return "".join(self._pieces)

    def can_go_on(self, error: GatewayError) -> bool:
        exchange, request = self._exchange, self._exchange.request
        if not (isinstance(request, Request) and request.stream and self._plain and self._room >= 0):
            return False
        asked_for_text = request.n == 1 and request.format is None and request.dialect == "chat"
        if not asked_for_text or error.blame is not Blame.UPSTREAM or exchange.candidate is None:
            return False
        if request.messages and request.messages[-1].role == "assistant":
            return False
        broken = exchange.candidate.card.id
        return any(each.card.id != broken for each in exchange.candidates)

    def seen(self, event: Event) -> Event | None:
        """The event as the caller gets it, if it does."""
        match event:
            case Start():
                return self._started(event)
            case Text():
                return self._said(event)
            case Reasoning():
                # What the next one thinks about, the caller cannot place any more.
                return None if self._exchange.continuation and self._pieces else self._again(event)
            case ToolCall() | Finish():
                self._plain = False
                return self._again(event)
            case _:
                return event

    def _started(self, start: Start) -> Start | None:
        if self._start is None:
            self._start = start
            return start
        before, now = self._start.served, self._exchange.served()
        if before is not None:
            now.session, now.context = before.session, before.context
        self._start.served = now
        return None

    def _said(self, event: Text) -> Event:
        if event.refusal:
            self._plain = False
        elif event.text:
            if self._joint and self._pieces and self._pieces[-1][-1:].isspace():
                event.text = event.text.lstrip()
            self._room -= len(event.text)
            if event.text and self._room >= 0:
                self._joint = False
                self._pieces.append(event.text)
        return self._again(event)

    def _again(self, event: Event) -> Event:
        """As part of the answer that began with the first Start: bytes that name another one do not fit it."""
        if self._exchange.continuation is not None:
            if isinstance(event, (Text, Reasoning, ToolCall)):
                event.raw = None
            elif isinstance(event, Finish):
                event.extra = None
        return event
