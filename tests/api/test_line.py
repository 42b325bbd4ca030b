"""A stream that is quiet must not look dead, and a client that takes nothing must not keep its model."""

from __future__ import annotations

import asyncio

import pytest

from app.api.inbound import WAITING
from app.api.line import PING, Line, LineTimes, keep
from app.core.errors import ClientGone
from tests.api.wire import Wire, beside, soon

NEVER = LineTimes(60, 60, 60)


async def test_what_is_held_leaves_with_the_next_write_and_in_order() -> None:
    wire = Wire()
    line = Line(wire.inbound(), NEVER)
    await line.open([(b"x-request-id", b"mine")])
    await line.open([(b"x-request-id", b"another")])
    line.hold(b"a")
    line.hold(b"b")
    await line.write(b"c")
    await line.end(b"d")
    assert [message.get("body") for message in wire.sent[1:]] == [b"abc", b"d"]
    assert wire.headers["x-request-id"] == "mine" and wire.complete


async def test_nothing_is_done_before_it_is_due() -> None:
    wire = Wire()
    line = Line(wire.inbound(), NEVER)
    await line.tick()
    assert wire.sent == [] and line.wake() > asyncio.get_running_loop().time() + 10


async def test_who_waits_long_gets_headers_and_comments() -> None:
    wire = Wire()
    async with beside(keep(wire.inbound(), Line(inbound := wire.inbound(), LineTimes(0.01, 0.01, 60)))) as task:
        await soon(lambda: wire.body.count(PING) >= 2)
        assert wire.headers["x-request-id"] == inbound.request_id and not task.done()
        task.cancel()


async def test_keeping_ends_when_the_client_leaves() -> None:
    wire = Wire()
    inbound = wire.inbound()
    async with beside(keep(inbound, Line(inbound, NEVER))) as task:
        wire.leave()
        await task


async def test_a_client_that_takes_nothing_of_its_answer_is_given_up() -> None:
    wire = Wire()
    inbound = wire.inbound()
    line = Line(inbound, LineTimes(60, 60, 0.02))
    await line.open([])
    wire.takes.clear()
    async with beside(line.write(b"a")) as writing:
        await asyncio.sleep(0)
        with pytest.raises(ClientGone, match="takes nothing"):
            await keep(inbound, line)
        writing.cancel()


async def test_a_client_that_does_not_even_take_a_comment_is_given_up() -> None:
    wire = Wire()
    wire.takes.clear()
    with pytest.raises(ClientGone, match="comment"):
        await keep(wire.inbound(), Line(wire.inbound(), LineTimes(0.01, 0.01, 0.02)))


async def test_the_last_words_wait_for_nobody() -> None:
    wire = Wire()
    line = Line(wire.inbound(), LineTimes(60, 60, 0.02))
    await line.open([])
    wire.takes.clear()
    await line.last(b"an error")
    assert wire.aborted


async def test_a_client_that_takes_a_little_is_not_given_up() -> None:
    """A write may need many of its readings: at a kilobyte a second a full buffer lasts."""
    wire, left = Wire(), 1_000
    wire.scope["extensions"] = {WAITING: lambda: left}
    line, now = Line(wire.inbound(), LineTimes(60, 60, 30)), 0.0
    line._time = lambda: now
    await line.open([])
    wire.takes.clear()
    async with beside(line.write(b"a")) as writing:
        await asyncio.sleep(0)
        for _ in range(100):
            now, left = now + 20, left - 1
            await line.tick()
        now += 20
        await line.tick()
        assert line.wake() <= now + 30 / 4
        now += 20
        with pytest.raises(ClientGone):  # for 40 s it took nothing
            await line.tick()
        writing.cancel()
