"""Without these a client that leaves ends its stream, one that comes back gets other bytes, or an error takes the place
of an event."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from app.api.line import LineTimes
from app.api.resumable import Resumable, Resumed
from app.config.settings import Settings
from app.core.caller import ANONYMOUS
from app.core.errors import Broken, InternalError, StreamBroken, UpstreamFailed
from app.core.events import Event, Fault
from app.core.request import Request
from app.core.tasks import TaskOwner
from app.flags import Flags
from app.gateway import resumable as running
from app.gateway.live import Bounds
from app.gateway.resumable import Streams
from app.store.client import Store
from app.store.streams import StreamStore
from app.wire import chat
from tests.api.wire import Scripted, Wire, begin, beside, request, soon, whole_answer

NEVER = LineTimes(60, 60, 60)
FLAGS = Flags.start(Settings().flags)


class Site:
    """A gateway that answers by script, with the streams of a store."""

    def __init__(self, store: Store, *steps: Any, times: LineTimes = NEVER, orphan_seconds: float = 60.0) -> None:
        self.faults: list[BaseException] = []
        self.tasks = TaskOwner(lambda name, error: self.faults.append(error))
        self.gateway = Scripted(*steps)
        self.streams = Streams(StreamStore(store), lambda: FLAGS, "opt-in", Bounds(orphan_seconds))
        self.resumable = Resumable(self.streams, self.gateway.gateway, chat, times, self.tasks)

    async def ask(self, wire: Wire, *ignored: str) -> bool:
        return await self.resumable.answer_if_asked(wire.inbound(), ANONYMOUS, wanting(*ignored))

    async def again(self, wire: Wire, id: str, after: int = 0, times: LineTimes = NEVER) -> None:
        events = await self.streams.find(ANONYMOUS, id, after)
        await Resumed(id, events, times)(wire.scope, wire.receive, wire.send)


@pytest.fixture(autouse=True)
def soon_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settlement stands behind the scripts."""
    monkeypatch.setattr(running, "RECORD_SECONDS", 0.01)


def wanting(*ignored: str) -> Request:
    asked = request(ignored=("x-tierway-resumable", *ignored))
    return replace(asked, terms=replace(asked.terms, resumable=True))


def ids(body: bytes) -> list[int]:
    return [int(line[4:]) for line in body.split(b"\n") if line.startswith(b"id: ")]


async def test_a_request_that_is_none_is_left_alone(store: Store) -> None:
    site, wire = Site(store, *whole_answer()), Wire()
    assert not await site.resumable.answer_if_asked(wire.inbound(), ANONYMOUS, request())
    assert not wire.sent and not site.gateway.asked


async def test_a_stream_and_its_repetition(store: Store) -> None:
    site, wire, again = Site(store, *whole_answer()), Wire(), Wire()
    assert await site.ask(wire, "x-tierway-cache")
    assert wire.status == 200 and wire.complete and wire.body.endswith(b"data: [DONE]\n\n")
    assert ids(wire.body) == list(range(1, len(ids(wire.body)) + 1))
    assert wire.headers["content-type"].startswith("text/event-stream")
    assert wire.headers["x-tierway-ignored"] == "x-tierway-cache" and wire.headers["x-tierway-model"]
    id = wire.headers["x-tierway-stream-id"]
    ((_, made),) = site.gateway.asked
    assert id.startswith("stream_") and made.terms.stream_id == id, "its record finds it by that"
    await site.again(again, id, 2)
    assert again.body == wire.body[wire.body.index(b"id: 3\n") :] and again.complete
    assert again.headers["x-tierway-stream-id"] == id and again.headers["x-request-id"]
    assert site.gateway.over == 1


async def test_it_goes_on_when_its_client_leaves(store: Store) -> None:
    go = asyncio.Event()
    first, *rest = whole_answer()
    site, wire, again = Site(store, first, rest[0], go, *rest[1:]), Wire(), Wire()
    async with beside(site.ask(wire)) as task:
        await soon(lambda: b"Hello" in wire.body)
        wire.leave()
        await task
    assert len(site.tasks) == 1
    async with beside(site.again(again, wire.headers["x-tierway-stream-id"])) as task:
        await soon(lambda: b"Hello" in again.body)
        go.set()
        await task
    assert again.body.startswith(wire.body) and again.body.endswith(b"[DONE]\n\n")


async def test_who_left_too_early_to_come_back_ends_it(store: Store) -> None:
    site, wire = Site(store, asyncio.Event()), Wire()
    async with beside(site.ask(wire)) as task:
        await site.gateway.waiting.wait()
        wire.leave()
        await task
    await soon(lambda: len(site.tasks) == 0, 10)
    assert site.gateway.over == 1 and not wire.sent and not site.faults


async def test_headers_that_go_out_early_say_how_to_come_back(store: Store) -> None:
    go = asyncio.Event()
    site, wire = Site(store, go, *whole_answer(), times=LineTimes(0.01, 0.01, 60)), Wire()
    async with beside(site.ask(wire)) as task:
        await soon(lambda: wire.body.count(b": ping\n") > 1)
        assert wire.headers["x-tierway-stream-id"] and b"\n\n" not in wire.body
        go.set()
        await task
    assert wire.body.endswith(b"[DONE]\n\n")


async def test_a_failure_before_anything_keeps_its_status(store: Store) -> None:
    site = Site(store, UpstreamFailed("nobody answered"))
    with pytest.raises(UpstreamFailed):
        await site.ask(Wire())
    assert not site.faults


async def test_a_failure_after_the_head_is_an_event_of_the_stream(store: Store) -> None:
    late = Site(store, 0.1, UpstreamFailed("nobody answered"), times=LineTimes(0.01, 60, 60))
    wire = Wire()
    with pytest.raises(UpstreamFailed):
        await late.ask(wire)
    assert b"upstream_failed" in wire.body and wire.complete


@pytest.mark.parametrize(
    ("step", "code", "faults"),
    [(Fault(Broken("cut")), b"upstream_failed", 0), (ValueError("secret"), b"internal_error", 1)],
)
async def test_an_answer_that_breaks(store: Store, step: Event | BaseException, code: bytes, faults: int) -> None:
    site, wire, again = Site(store, *whole_answer()[:2], step), Wire(), Wire()
    await site.ask(wire)
    await soon(lambda: len(site.tasks) == 0, 10)
    assert code in wire.body and b"[DONE]" not in wire.body and b"secret" not in wire.body
    assert len(site.faults) == faults
    await site.again(again, wire.headers["x-tierway-stream-id"])
    assert again.body == wire.body


async def test_a_fault_of_ours_before_anything(store: Store) -> None:
    site = Site(store, ValueError("secret"))
    with pytest.raises(InternalError):
        await site.ask(Wire())
    await soon(lambda: len(site.tasks) == 0, 10)
    assert len(site.faults) == 1


async def test_nobody_reads_it_any_more(store: Store) -> None:
    site, wire, again = Site(store, *whole_answer()[:2], asyncio.Event(), orphan_seconds=0.05), Wire(), Wire()
    async with beside(site.ask(wire)) as task:
        await soon(lambda: b"Hello" in wire.body)
        wire.leave()
        await task
    await soon(lambda: len(site.tasks) == 0, 10)
    assert site.gateway.over == 1
    await site.again(again, wire.headers["x-tierway-stream-id"])
    assert again.body.startswith(wire.body) and b"stream_orphaned" in again.body


async def test_when_the_gateway_stops(store: Store) -> None:
    """The error of the stream has an id; the one that its reader gets because its line is cut has none."""
    site, wire, again = Site(store, *whole_answer()[:2], asyncio.Event()), Wire(), Wire()
    async with beside(site.ask(wire)) as task:
        await soon(lambda: b"Hello" in wire.body)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    last = wire.body.split(b"\n\n")[-2]
    assert last.startswith(b"data: ") and b"shutting_down" in last and ids(wire.body) == [1, 2]
    await site.resumable.aclose()
    assert len(site.tasks) == 0 and not site.faults
    await site.again(again, wire.headers["x-tierway-stream-id"], 2)
    assert again.body.startswith(b"id: 3\ndata: ") and b"shutting_down" in again.body


async def test_a_client_that_takes_nothing_is_cut(store: Store) -> None:
    """And the stream goes on, for when it comes back."""
    go, (first, *rest) = asyncio.Event(), whole_answer()
    site, wire, again = Site(store, first, rest[0], go, *rest[1:], times=LineTimes(60, 60, 0.05)), Wire(), Wire()
    async with beside(site.ask(wire)) as task:
        await soon(lambda: b"Hello" in wire.body)
        wire.takes.clear()
        go.set()
        await task
    assert wire.aborted
    await site.again(again, wire.headers["x-tierway-stream-id"])
    assert again.body.startswith(wire.body) and again.body.endswith(b"[DONE]\n\n") and not site.faults


async def test_a_stream_whose_gateway_is_gone(store: Store) -> None:
    async def broken() -> Any:
        yield b"id: 1\ndata: {}\n\n"
        raise StreamBroken("It is gone.")

    wire = Wire()
    await Resumed("stream_1", broken(), NEVER)(wire.scope, wire.receive, wire.send)
    assert ids(wire.body) == [1] and b"stream_broken" in wire.body and wire.complete


async def test_begin_is_what_the_headers_tell_of(store: Store) -> None:
    site, wire = Site(store, begin(ignored=("seed",)), *whole_answer()[1:]), Wire()
    await site.ask(wire)
    assert wire.headers["x-tierway-ignored"] == "seed"
