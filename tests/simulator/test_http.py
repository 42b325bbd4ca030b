"""Without these a scripted cut, hang or refusal would not happen, and a test would pass for the wrong reason."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from app.core.tasks import TaskOwner
from app.simulator.http import Gate, Listener
from app.simulator.record import Call
from app.simulator.script import Break, Hang, Head, Queue, Script, Wait, whole

OK = whole(200, b'{"ok":true}')
STREAM = Head(200, "text/plain")
GET = b"GET /a%20b?x=1 HTTP/1.1\r\nHost: x\r\n\r\n"


class Served:
    """A listener that answers with a script, and what it saw."""

    def __init__(self, script: Script | Callable[[Call], Script], gate: Gate | None = None) -> None:
        self.calls: list[Call] = []
        self.errors: list[BaseException] = []
        self._script = script
        tasks = TaskOwner(lambda _, error: self.errors.append(error))
        self.listener = Listener(self._answer, tasks, gate or Gate())

    def _answer(self, call: Call) -> Script:
        self.calls.append(call)
        return self._script(call) if callable(self._script) else self._script


@contextlib.asynccontextmanager
async def serving(script: Script | Callable[[Call], Script], gate: Gate | None = None) -> AsyncIterator[Served]:
    served = Served(script, gate)
    await served.listener.listen("127.0.0.1", 0)
    try:
        yield served
    finally:
        await served.listener.close()


@contextlib.asynccontextmanager
async def connected(served: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.listener.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def exchange(served: Served, data: bytes) -> bytes:
    """All that comes back until the connection ends."""
    async with connected(served) as (reader, writer):
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 5)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def closing(request: bytes) -> bytes:
    return request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


async def test_a_request_is_understood_and_answered() -> None:
    post = b"POST /v1 HTTP/1.1\r\nX-Some: Thing\r\nContent-Length: 7\r\n\r\n" + b'{"a":1}'
    async with serving(OK) as served:
        got = await exchange(served, GET + closing(post))
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert got.endswith(b'content-length: 11\r\n\r\n{"ok":true}')
    first, second = served.calls
    assert (first.method, first.path, first.query) == ("GET", "/a b", "x=1")
    assert (second.body, second.headers["x-some"], second.keep_alive) == ({"a": 1}, "Thing", False)
    assert first.over_at is not None and not first.disconnected


async def test_a_body_may_come_in_pieces() -> None:
    async with serving(OK) as served, connected(served) as (reader, writer):
        for piece in (b"POST /x HTTP/1.1\r\nContent-", b"Length: 4\r\n\r\nab", b"cd"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        await asyncio.wait_for(reader.readuntil(b"}"), 5)
    assert served.calls[0].raw == b"abcd"


async def test_a_stream_is_sent_in_chunks() -> None:
    async with serving((STREAM, b"ab", b"", Wait(0.001), b"c")) as served:
        got = await exchange(served, closing(GET))
    assert got.endswith(b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")


@pytest.mark.parametrize("script", [OK, (STREAM, b"ab")])
async def test_a_head_request_gets_no_body(script: Script) -> None:
    async with serving(script) as served:
        got = await exchange(served, closing(GET.replace(b"GET", b"HEAD")))
    assert got.endswith(b"\r\n\r\n")
    assert got.count(b"\r\n\r\n") == 1


async def test_the_status_line_waits_for_what_comes_before_it() -> None:
    async with serving((Wait(0.05), *OK)) as served:
        began = asyncio.get_running_loop().time()
        await exchange(served, closing(GET))
        assert asyncio.get_running_loop().time() - began > 0.04  # clocks of loops are coarse


async def test_a_large_body_is_asked_to_continue() -> None:
    head = b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    async with serving(OK) as served, connected(served) as (reader, writer):
        writer.write(head)
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"x")
        assert (await asyncio.wait_for(reader.readuntil(b"}"), 5)).startswith(b"HTTP/1.1 200")


async def test_a_closed_connection_ends_without_its_end() -> None:
    async with serving((STREAM, b"half", Break(), b"never")) as served:
        got = await exchange(served, GET)
    assert got.endswith(b"4\r\nhalf\r\n")
    assert not served.calls[0].disconnected


async def test_a_reset_is_one_and_comes_after_what_was_sent() -> None:
    async with serving((STREAM, b"half", Break(reset=True))) as served, connected(served) as (reader, writer):
        writer.write(GET)
        assert (await asyncio.wait_for(reader.readuntil(b"half\r\n"), 5)).startswith(b"HTTP/1.1 200")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)


@pytest.mark.parametrize("script", [(Hang(),), (STREAM, b"x", Hang())])
async def test_it_hangs_until_the_client_leaves_and_remembers_when(script: Script) -> None:
    async with serving(script) as served:
        async with connected(served) as (_, writer):
            writer.write(GET)
            await until(lambda: bool(served.calls))
            await asyncio.sleep(0.02)
            assert not served.calls[0].disconnected
        await until(lambda: served.calls[0].disconnected)
        await until(lambda: not served.listener.connections)
    left, over = served.calls[0].left_at, served.calls[0].over_at
    assert left is not None and left >= served.calls[0].at and over is None


async def test_a_client_that_reads_nothing_is_waited_for() -> None:
    block = b"x" * 65_536
    sent: list[int] = []

    def script(_: Call) -> Script:
        def steps() -> object:
            yield STREAM
            for number in range(2_000):
                sent.append(number)
                yield block

        return steps()  # type: ignore[return-value]  # a script that notes how far it was played

    async with serving(script) as served, connected(served) as (reader, writer):
        writer.write(closing(GET))
        await asyncio.sleep(0.2)
        stuck = len(sent)
        assert stuck < 500
        while await asyncio.wait_for(reader.read(1 << 20), 5):
            pass
        assert len(sent) == 2_000


async def test_what_is_no_http_is_dropped() -> None:
    async with serving(OK) as served:
        assert await exchange(served, b"\x16\x03\x01 not http\r\n\r\n") == b""
    assert served.calls == []


async def test_a_body_beyond_all_bounds_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.simulator.http._BODY_LIMIT", 10)
    async with serving(OK) as served:
        with contextlib.suppress(ConnectionResetError):
            assert await exchange(served, b"POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\n" + b"x" * 20) == b""
    assert served.calls == []


async def test_a_mistake_of_the_answerer_is_kept_and_ends_the_connection() -> None:
    def broken(_: Call) -> Script:
        raise RuntimeError("mistake")

    async with serving(broken) as served:
        with contextlib.suppress(ConnectionResetError):
            assert await exchange(served, GET) == b""
        await until(lambda: bool(served.errors))
    assert str(served.errors[0]) == "mistake"


async def test_a_port_refuses_and_takes_connections_again() -> None:
    async with serving(OK) as served:
        port = served.listener.port
        served.listener.refuse()
        served.listener.refuse()
        with pytest.raises(ConnectionRefusedError):
            await exchange(served, closing(GET))
        await served.listener.accept()
        await served.listener.accept()
        assert served.listener.port == port
        assert await exchange(served, closing(GET))


async def test_replies_wait_for_a_place_and_give_it_back() -> None:
    gate = Gate(1)
    async with serving((Queue(), Wait(0.05), *OK), gate) as served:
        both = asyncio.gather(exchange(served, closing(GET)), exchange(served, closing(GET)))
        await until(lambda: gate.waiting == 1)
        assert gate.running == 1 and gate.full(1) and not gate.full(2) and not gate.full(None)
        await both
    assert (gate.running, gate.waiting) == (0, 0)


async def test_a_client_that_leaves_frees_its_place() -> None:
    gate = Gate(1)
    script: Script = (Queue(), Hang())
    async with serving(script, gate) as served:
        async with connected(served) as (_, first):
            first.write(GET)
            await until(lambda: gate.running == 1)
            async with connected(served) as (_, second):
                second.write(GET)
                await until(lambda: gate.waiting == 1)
            await until(lambda: gate.waiting == 0)
            async with connected(served) as (_, third):
                third.write(GET)
                await until(lambda: gate.waiting == 1)
                first.close()
                await until(lambda: gate.waiting == 0 and gate.running == 1)
        await until(lambda: gate.running == 0)


async def test_a_place_that_was_given_to_one_who_left_is_passed_on() -> None:
    gate = Gate(1)
    await gate.enter()
    tasks = TaskOwner(lambda _name, _error: None)
    waiting = tasks.spawn(gate.enter(), "waiting")
    await until(lambda: gate.waiting == 1)
    gate.leave()
    waiting.cancel()
    await tasks.drain(1)
    assert (gate.running, gate.waiting) == (0, 0)
