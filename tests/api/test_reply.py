"""Without these a client gets a status that is not true, a stream that looks whole and is not, or upstreams go on
working for a client that has left."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest

from app.api.line import LineTimes
from app.api.reply import reply
from app.core.caller import ANONYMOUS
from app.core.errors import Broken, UpstreamFailed
from app.core.events import Fault, Finish, Text
from app.wire import chat
from tests.api.wire import Scripted, Wire, begin, beside, request, soon, usage, whole_answer

NEVER = LineTimes(60, 60, 60)


async def ask(gateway: Scripted, wire: Wire, times: LineTimes = NEVER, **how: Any) -> None:
    await reply(wire.inbound(), ANONYMOUS, request(**how), gateway.gateway, chat, times)


def events(wire: Wire) -> list[Any]:
    """What an SSE client makes of the body; comments are left out."""
    blocks = wire.body.decode().split("\n\n")
    assert blocks.pop() == "", "a stream ends with a whole event"
    data = [block.removeprefix("data: ") for block in blocks if not block.startswith(":")]
    return [each if each == "[DONE]" else orjson.loads(each) for each in data]


def text(wire: Wire) -> str:
    chunks = [each for each in events(wire) if each != "[DONE]" and "choices" in each]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


# --- going well -----------------------------------------------------------------------------------------------------


async def test_a_stream_is_sent_as_it_comes() -> None:
    wire, gateway = Wire(), Scripted(*whole_answer())
    await ask(gateway, wire, ignored=("x-tierway-cache",))
    assert wire.status == 200 and wire.complete and gateway.over == 1
    assert wire.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert wire.headers["cache-control"] == "no-cache" and wire.headers["x-accel-buffering"] == "no"
    assert wire.headers["x-tierway-model"] == "up/small" and wire.headers["x-tierway-ignored"] == "x-tierway-cache"
    assert "content-length" not in wire.headers and "x-tierway-cost-usd" not in wire.headers
    assert text(wire) == "Hello there" and events(wire)[-1] == "[DONE]"


async def test_pieces_that_came_together_leave_together() -> None:
    """A write for each costs more than all else that is done for it; and nothing may be left behind."""
    pieces = [Text("Hel", more=True), Text("lo", more=True), Text(" there")]
    wire, gateway = Wire(), Scripted(begin(), *pieces, Finish("stop"), usage())
    await ask(gateway, wire)
    assert text(wire) == "Hello there" and events(wire)[-1] == "[DONE]"


async def test_what_waited_for_a_piece_that_never_came_is_not_lost() -> None:
    wire, gateway = Wire(), Scripted(begin(), Text("Hel", more=True), Fault(Broken("cut")))
    await ask(gateway, wire)
    assert text(wire) == "Hel" and events(wire)[-1]["error"]["code"] == "upstream_failed"


async def test_a_whole_answer_has_the_same_words() -> None:
    wire, gateway = Wire(), Scripted(*whole_answer())
    await ask(gateway, wire, stream=False, ignored=("seed",))
    assert wire.status == 200 and wire.complete and gateway.over == 1
    assert wire.headers["content-type"] == "application/json"
    assert wire.headers["content-length"] == str(len(wire.body)) and wire.headers["x-tierway-cost-usd"]
    assert wire.headers["x-tierway-ignored"] == "seed" and "cache-control" not in wire.headers
    assert wire.json["choices"][0]["message"]["content"] == "Hello there"


async def test_what_the_upstream_dropped_is_named_beside_what_we_did() -> None:
    wire = Wire()
    await ask(Scripted(begin(ignored=("seed",)), *whole_answer()[1:]), wire, ignored=("x-tierway-cache",))
    assert wire.headers["x-tierway-ignored"] == "x-tierway-cache, seed"


async def test_the_head_goes_out_with_the_first_content_and_not_before() -> None:
    """Until then a failure can still have its own status."""
    go = asyncio.Event()
    wire = Wire()
    async with beside(ask(Scripted(go, *whole_answer()), wire)) as task:
        await asyncio.sleep(0.02)
        assert wire.sent == []
        go.set()
        await task
    assert wire.status == 200


async def test_each_piece_is_sent_when_it_comes() -> None:
    go = asyncio.Event()
    wire = Wire()
    async with beside(ask(Scripted(begin(), Text("Hello"), go, Finish("stop"), usage()), wire)) as task:
        await soon(lambda: len(wire.sent) > 2)
        assert text(wire) == "Hello" and not wire.complete
        go.set()
        await task


# --- keeping the line alive -----------------------------------------------------------------------------------------


async def test_a_long_silence_is_filled() -> None:
    """Proxies cut what is silent; the answer that then comes is complete."""
    wire, go = Wire(headers={"x-request-id": "mine"}), asyncio.Event()
    async with beside(ask(Scripted(go, *whole_answer()), wire, LineTimes(0.02, 0.01, 60))) as task:
        await soon(lambda: wire.body.count(b": ping\n\n") >= 3)
        assert wire.status == 200 and wire.headers["x-request-id"] == "mine"
        assert "x-tierway-model" not in wire.headers, "nobody can know yet"
        go.set()
        await task
    assert text(wire) == "Hello there" and events(wire)[-1] == "[DONE]"
    assert [message["type"] for message in wire.sent].count("http.response.start") == 1


async def test_a_silence_between_pieces_is_filled() -> None:
    wire, go = Wire(), asyncio.Event()
    script = (begin(), Text("Hello"), go, Text(" there"), Finish("stop"), usage())
    async with beside(ask(Scripted(*script), wire, LineTimes(60, 0.01, 60))) as task:
        await soon(lambda: b": ping\n\n" in wire.body)
        go.set()
        await task
    assert text(wire) == "Hello there"


async def test_a_stream_that_is_never_silent_is_not_pinged() -> None:
    steps = [each for _ in range(20) for each in (Text("x"), 0.005)]
    wire = Wire()
    await ask(Scripted(begin(), *steps, Finish("stop"), usage()), wire, LineTimes(0.5, 0.5, 60))
    assert b"ping" not in wire.body


async def test_a_whole_answer_is_never_pinged() -> None:
    wire = Wire()
    await ask(Scripted(0.05, *whole_answer()), wire, LineTimes(0.01, 0.01, 60), stream=False)
    assert b"ping" not in wire.body and wire.json


# --- failing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("error", [UpstreamFailed("All failed."), RuntimeError("a mistake")])
async def test_a_failure_before_the_head_can_have_its_status(stream: bool, error: Exception) -> None:
    wire, gateway = Wire(), Scripted(error)
    with pytest.raises(type(error)):
        await ask(gateway, wire, stream=stream)
    assert wire.sent == [] and gateway.over == 1


async def test_an_answer_that_broke_is_an_error_event_and_never_looks_whole() -> None:
    wire = Wire()
    await ask(Scripted(begin(), Text("Hello"), Fault(Broken("It broke."))), wire)
    assert wire.status == 200 and wire.complete and text(wire) == "Hello"
    assert events(wire)[-1]["error"]["code"] == "upstream_failed" and b"[DONE]" not in wire.body


async def test_a_whole_answer_that_broke_is_an_error() -> None:
    wire = Wire()
    with pytest.raises(Broken):
        await ask(Scripted(begin(), Text("Hello"), Fault(Broken("It broke."))), wire, stream=False)
    assert wire.sent == []


async def test_a_failure_after_the_head_is_an_error_event() -> None:
    """The pings had sent a 200 already."""
    wire = Wire()
    with pytest.raises(UpstreamFailed):
        await ask(Scripted(0.05, UpstreamFailed("All failed.")), wire, LineTimes(0.01, 60, 60))
    assert wire.status == 200 and wire.complete
    assert [each["error"]["code"] for each in events(wire)] == ["upstream_failed"]


async def test_a_mistake_of_ours_after_the_head_is_an_error_event_too() -> None:
    """Raised again, so that somebody hears of it; the client learns the id."""
    wire = Wire(headers={"x-request-id": "mine"})
    with pytest.raises(RuntimeError):
        await ask(Scripted(begin(), Text("Hello"), RuntimeError("the password is x")), wire)
    last = events(wire)[-1]["error"]
    assert wire.complete and last["code"] == "internal_error" and "mine" in last["message"]
    assert b"password" not in wire.body and b"[DONE]" not in wire.body


async def test_a_stream_cut_by_the_servers_end_says_so() -> None:
    wire, gateway = Wire(), Scripted(begin(), Text("Hello"), asyncio.Event())
    async with beside(ask(gateway, wire)) as task:
        await gateway.waiting.wait()
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled() and gateway.over == 1
    assert wire.complete and events(wire)[-1]["error"]["code"] == "shutting_down"


async def test_the_last_word_does_not_wait_for_a_client_that_takes_nothing() -> None:
    wire, go = Wire(), asyncio.Event()
    gateway = Scripted(begin(), Text("Hello"), go, RuntimeError("a mistake"))
    async with beside(ask(gateway, wire, LineTimes(60, 60, 0.05))) as task:
        await gateway.waiting.wait()
        wire.takes.clear()
        go.set()
        await soon(task.done)
        assert isinstance(task.exception(), RuntimeError) and wire.aborted


# --- clients that leave, or take nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("place", range(6))
async def test_a_client_that_leaves_ends_the_answer_wherever_it_is(place: int, stream: bool) -> None:
    """At every point where the gateway waits for the upstream; within a moment, and without an error."""
    steps: list[Any] = list(whole_answer())
    steps.insert(place, asyncio.Event())
    wire, gateway = Wire(), Scripted(*steps)
    async with beside(ask(gateway, wire, stream=stream)) as task:
        await gateway.waiting.wait()
        wire.leave()
        await soon(task.done)
        assert task.exception() is None and gateway.over == 1
    assert not wire.complete and wire.late == []


async def test_a_client_that_leaves_while_it_takes_nothing_ends_the_answer() -> None:
    wire, gateway = Wire(), Scripted(begin(), Text("Hello"), asyncio.Event())
    wire.takes.clear()
    async with beside(ask(gateway, wire)) as task:
        await soon(lambda: gateway.asked)
        await asyncio.sleep(0.01)
        wire.leave()
        await soon(task.done)
        assert task.exception() is None and gateway.over == 1
    assert not any(b"error" in message.get("body", b"") for message in wire.late), "nobody is there to be told"


async def test_a_client_that_leaves_between_pings_ends_the_answer() -> None:
    wire, gateway = Wire(), Scripted(asyncio.Event())
    async with beside(ask(gateway, wire, LineTimes(0.01, 0.01, 60))) as task:
        await soon(lambda: b"ping" in wire.body)
        wire.leave()
        await soon(task.done)
        assert task.exception() is None and gateway.over == 1


async def test_a_client_that_takes_nothing_is_dropped() -> None:
    """Else a few sleeping clients hold the places of an upstream for ever."""
    wire, gateway = Wire(), Scripted(*whole_answer())
    wire.takes.clear()
    async with beside(ask(gateway, wire, LineTimes(0.01, 0.01, 0.05))) as task:
        await soon(task.done)
        assert task.exception() is None and wire.aborted and gateway.over == 1


async def test_a_client_that_stops_taking_in_the_middle_is_dropped() -> None:
    wire = Wire()
    gateway = Scripted(begin(), Text("Hello"), 0.02, Text(" there"), Finish("stop"), usage())
    async with beside(ask(gateway, wire, LineTimes(60, 60, 0.05))) as task:
        await gateway.waiting.wait()
        wire.takes.clear()
        await soon(task.done)
        assert task.exception() is None and wire.aborted and gateway.over == 1


async def test_a_client_that_does_not_even_take_a_ping_is_dropped() -> None:
    """The upstream is silent and the line is full: nobody else would notice."""
    wire, gateway = Wire(), Scripted(begin(), Text("Hello"), asyncio.Event())
    async with beside(ask(gateway, wire, LineTimes(60, 0.02, 0.05))) as task:
        await gateway.waiting.wait()
        wire.takes.clear()
        await soon(task.done)
        assert task.exception() is None and wire.aborted and gateway.over == 1


async def test_a_client_that_is_slow_is_waited_for() -> None:
    wire, gateway = Wire(), Scripted(*whole_answer())
    wire.takes.clear()
    async with beside(ask(gateway, wire, LineTimes(60, 60, 0.2))) as task:
        await asyncio.sleep(0.05)
        wire.takes.set()
        await task
    assert text(wire) == "Hello there" and not wire.aborted


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_money_ended_says_so_at_its_end(stream: bool) -> None:
    """In its last chunk, or its body: `length` alone looks like the caller's own limit."""
    last = replace(usage(), stopped="budget")
    wire = Wire()
    await ask(Scripted(begin(), Text("Hel"), Finish("length"), last), wire, stream=stream)
    told = [each for each in events(wire) if each != "[DONE]"] if stream else [orjson.loads(wire.body)]
    about = [each["tierway"] for each in told if "tierway" in each]
    assert about[-1]["stopped"] == "budget" and all("stopped" not in each for each in about[:-1])
    assert [choice["finish_reason"] for each in told for choice in each.get("choices", ())][-1] == "length"
