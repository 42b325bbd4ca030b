"""Switching streaming off must not break clients that ask for it: they get the whole answer in one piece, from an
upstream that was not asked to stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.errors import Broken
from app.core.events import Event, Fault, Finish, Start, Text, Usage
from app.core.money import Tokens
from app.core.request import Request
from app.flags import Flags
from app.gateway.unstreamed import Unstreamed
from tests.core.nouns import chat

START = Start("id", "m", 0, "chat", raw=b"raw")
WHOLE: list[Event] = [START, Text("he", raw=b"1"), Text("llo", raw=b"2"), Finish("stop"), Usage(Tokens(1, 2))]


class Answering:
    """A gateway that says these events."""

    def __init__(self, *events: Event) -> None:
        self.events = events
        self.asked: list[Request] = []
        self.closed = False

    async def answer(self, caller: Caller, request: Request) -> AsyncGenerator[Event, None]:
        self.asked.append(request)
        try:
            for event in self.events:
                yield event
        finally:
            self.closed = True


async def said(gateway: Answering, request: Request, *, streams: bool) -> list[Event]:
    answers = Unstreamed(gateway, lambda: Flags({"STREAMING": float(streams)}))
    async with contextlib.aclosing(answers.answer(ANONYMOUS, request)) as events:
        return [event async for event in events]


async def test_who_may_stream_gets_every_piece() -> None:
    gateway = Answering(*WHOLE)
    assert await said(gateway, chat(stream=True), streams=True) == WHOLE
    assert gateway.asked[0].stream


async def test_who_may_not_gets_all_of_it_at_once() -> None:
    gateway = Answering(*WHOLE)
    assert await said(gateway, chat(stream=True), streams=False) == [
        START,
        Text("hello"),
        Finish("stop"),
        Usage(Tokens(1, 2)),
    ]
    assert not gateway.asked[0].stream and gateway.closed


async def test_who_asked_for_json_is_not_concerned() -> None:
    gateway = Answering(*WHOLE)
    assert await said(gateway, chat(), streams=False) == WHOLE


async def test_an_answer_that_broke_is_an_error_and_no_half_of_it() -> None:
    """Nothing of it has gone out yet, so it can be one with a status."""
    with pytest.raises(Broken):
        await said(Answering(START, Text("he"), Fault(Broken("cut"))), chat(stream=True), streams=False)


async def test_a_client_that_leaves_ends_the_work() -> None:
    gateway = Answering(*WHOLE)
    events = Unstreamed(gateway, lambda: Flags({"STREAMING": 0.0})).answer(ANONYMOUS, chat(stream=True))
    await anext(events)
    await events.aclose()
    assert gateway.closed
