"""The transport against real sockets that misbehave: whatever a server does must end, in time, in the right core error.

Each test speaks through a raw asyncio server, so that bytes no HTTP library would write can be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import Iterator

import pytest

from app.core.errors import BadReply, Broken, InternalError, Refused, TimedOut, UpstreamFault
from app.upstreams.http import Call, Clocks, HttpTransport, Transport
from tests.upstreams.sockets import CHUNKED, JSON_HEAD, Handler, hangs_after, says, server

CLOCKS = Clocks(connect=5.0, first_token=5.0, idle=5.0, total=10.0)
SOON = 0.1  # seconds of a clock that is meant to run out


async def fetched(transport: Transport, url: str, clocks: Clocks = CLOCKS, limit: int = 1 << 20) -> bytes:
    async with transport.send(Call("GET", url, {}), clocks) as reply:
        return await reply.read(limit)


async def test_head_and_body_arrive_as_sent(transport: Transport) -> None:
    handler = says(b"HTTP/1.1 418 Teapot\r\nX-Thing: Value\r\nContent-Type: Text/Plain; charset=utf-8\r\n\r\nhello")
    async with server(handler) as url, transport.send(Call("POST", url, {"a": "b"}, b"{}"), CLOCKS) as reply:
        assert (reply.status, reply.headers["x-thing"], reply.content_type) == (418, "Value", "text/plain")
        assert await reply.read() == b"hello"


async def test_the_request_is_sent_as_it_was_handed_in(transport: Transport) -> None:
    """Nothing of ours is added that an upstream could refuse, nothing of the caller's lost."""
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(2))
        await says(JSON_HEAD + b"content-length: 2\r\n\r\n{}")(reader, writer)

    async with server(handle) as url, transport.send(Call("POST", url, {}, b"[]"), CLOCKS) as reply:
        assert await reply.read() == b"{}"
    assert seen == [b"[]"]


async def test_a_reply_without_content_type_says_so(transport: Transport) -> None:
    async with server(says(b"HTTP/1.1 204 No Content\r\n\r\n")) as url:
        async with transport.send(Call("GET", url, {}), CLOCKS) as reply:
            assert (reply.content_type, await reply.read()) == ("", b"")


async def test_no_redirect_is_followed(transport: Transport) -> None:
    """A redirect would carry our key, and the caller's words, to another server."""
    async with server(says(b"HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")) as url:
        async with transport.send(Call("POST", url, {}, b"{}"), CLOCKS) as reply:
            assert reply.status == 307


@pytest.mark.parametrize(
    ("handler", "fault"),
    [
        (says(), Broken),
        (says(then="reset"), Broken),
        (says(b"SSH-2.0-OpenSSH\r\n\r\n"), BadReply),
        (says(b"HTTP/1.1 abc\r\n\r\n"), BadReply),
        (says(JSON_HEAD + b"content-length: x\r\n\r\n"), BadReply),
        (says(JSON_HEAD + b"x: " + b"y" * 100_000 + b"\r\n\r\n"), BadReply),
        (says(JSON_HEAD + b"content-length: 100\r\n\r\n{"), Broken),
        (says(JSON_HEAD + b"content-length: 100\r\n\r\n{", then="reset"), Broken),
        (says(CHUNKED + b"3\r\nabc\r\n"), Broken),
        (says(CHUNKED + b"3\r\nabc\r\n", b"zz\r\n"), UpstreamFault),  # which one depends on how the packets fall
        (says(CHUNKED + b"zz\r\nabc\r\n"), UpstreamFault),
        (says(JSON_HEAD + b"content-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope"), UpstreamFault),
    ],
    ids=[f"reply-{number}" for number in range(12)],
)
async def test_a_broken_reply_is_a_fault_of_the_upstream(
    transport: Transport, handler: Handler, fault: type[UpstreamFault]
) -> None:
    """Were another exception to escape, the caller would get a 500 instead of the next candidate's answer."""
    async with server(handler) as url:
        with pytest.raises(fault) as caught:
            await fetched(transport, url)
        assert "127.0.0.1" not in caught.value.message


async def test_what_came_before_the_break_is_still_read(transport: Transport) -> None:
    async with server(says(CHUNKED + b"3\r\nabc\r\n", then="hang")) as url:
        async with transport.send(Call("GET", url, {}), CLOCKS) as reply:
            assert await reply.more() == b"abc"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://[::ffff:127.0.0.1]:1/",
        "http://nobody.invalid/",
        "not a url",
        "http://[",
        "ftp://x",
    ],
)
async def test_where_nobody_listens_is_refused(transport: Transport, url: str) -> None:
    with pytest.raises(Refused):
        await fetched(transport, url)


async def test_a_plain_server_behind_https_is_refused(transport: Transport) -> None:
    async with server(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), read_head=False) as url:
        with pytest.raises(Refused):
            await fetched(transport, url.replace("http", "https"))


@pytest.fixture
def deaf() -> Iterator[str]:
    """A server with a full backlog: to a client, a hung or firewalled machine that never answers."""
    with contextlib.ExitStack() as sockets:
        listening = sockets.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_a_server_that_never_accepts_is_refused_after_the_connect_clock(transport: Transport, deaf: str) -> None:
    with pytest.raises(Refused):
        await fetched(transport, deaf, CLOCKS._replace(connect=SOON))


async def test_a_name_that_is_never_resolved_is_refused_after_the_connect_clock(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> list[object]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    with pytest.raises(Refused):
        await fetched(transport, "http://somewhere.test/", CLOCKS._replace(connect=SOON))


@pytest.mark.parametrize("which", ["total", "deadline"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_connecting_ends_with_the_attempt(transport: Transport, deaf: str, which: str, secure: bool) -> None:
    """A caller's 300 ms must not become the 5 s that an upstream may take to accept, nor be held against it."""
    until = time.monotonic() + SOON
    clocks = CLOCKS._replace(connect=60.0, total=SOON if which == "total" else 60.0, deadline=math.inf)
    clocks = clocks._replace(deadline=until) if which == "deadline" else clocks
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(30):
        url = deaf
        if secure:  # accepted at once; it is the handshake that nobody answers
            url = (await stack.enter_async_context(server(says(then="hang"), read_head=False))).replace("http", "https")
        with pytest.raises(TimedOut) as caught:
            await fetched(transport, url, clocks)
    assert caught.value.phase == "total" and not caught.value.billed, "nothing was sent"


@pytest.mark.parametrize(
    ("clocks", "phase"),
    [(CLOCKS._replace(first_token=SOON), "first_token"), (CLOCKS._replace(total=SOON), "total")],
)
async def test_a_head_that_does_not_come_runs_out_of_time(transport: Transport, clocks: Clocks, phase: str) -> None:
    async with server(says(then="hang")) as url:
        with pytest.raises(TimedOut) as caught:
            await fetched(transport, url, clocks)
    assert caught.value.phase == phase


async def test_a_head_without_content_runs_out_of_time(transport: Transport) -> None:
    """A sleeping engine sends a head and then nothing for ever; the caller must not wait for ever with it."""
    async with server(says(CHUNKED, then="hang")) as url:
        with pytest.raises(TimedOut) as caught:
            await fetched(transport, url, CLOCKS._replace(first_token=SOON))
    assert caught.value.phase == "first_token"


async def test_pieces_without_content_do_not_stop_the_first_token_clock(transport: Transport) -> None:
    """Pings and role chunks are no answer, however many come."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        while True:
            writer.write(b"3\r\n:\n\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(drip) as url:
        with pytest.raises(TimedOut) as caught:
            await fetched(transport, url, CLOCKS._replace(first_token=2 * SOON))
    assert caught.value.phase == "first_token"


async def read_with_content(transport: Transport, url: str, clocks: Clocks, pause: float = 0.0) -> list[bytes]:
    pieces = []
    async with transport.send(Call("GET", url, {}), clocks) as reply:
        reply.alarm.content(True)
        while data := await reply.more():
            pieces.append(data)
            await asyncio.sleep(pause)
    return pieces


async def test_a_stream_that_stops_is_noticed_by_the_idle_clock(transport: Transport) -> None:
    async with server(says(CHUNKED + b"3\r\nabc\r\n", then="hang")) as url:
        with pytest.raises(TimedOut) as caught:
            await read_with_content(transport, url, CLOCKS._replace(idle=SOON))
    assert caught.value.phase == "idle"


async def test_a_stream_that_goes_on_for_ever_ends_with_the_total_clock(transport: Transport) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(drip) as url:
        with pytest.raises(TimedOut) as caught:
            await read_with_content(transport, url, CLOCKS._replace(total=2 * SOON))
    assert caught.value.phase == "total"


async def test_pieces_in_time_reset_the_idle_clock(transport: Transport) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for _ in range(15):
            await asyncio.sleep(SOON)
            writer.write(b"1\r\nx\r\n")
        writer.write(b"0\r\n\r\n")

    async with server(drip) as url:
        assert b"".join(await read_with_content(transport, url, CLOCKS._replace(idle=10 * SOON))) == b"x" * 15


async def test_time_the_reader_spends_is_not_held_against_the_upstream(transport: Transport) -> None:
    """A slow client must not make a healthy upstream look dead."""
    pieces = [b"1\r\nx\r\n"] * 2 + [b"0\r\n\r\n"]

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)

    async with server(drip) as url:
        clocks = CLOCKS._replace(idle=3 * SOON)
        assert b"".join(await read_with_content(transport, url, clocks, pause=4 * SOON)) == b"xx"


async def test_a_reply_beyond_the_limit_is_not_kept(transport: Transport) -> None:
    async with server(says(JSON_HEAD + b"\r\n" + b"x" * 5_000)) as url:
        with pytest.raises(BadReply, match="larger than 1000 bytes"):
            await fetched(transport, url, limit=1_000)


async def test_leaving_early_closes_the_connection(transport: Transport) -> None:
    """The upstream must stop computing (and billing) when nobody listens any more."""
    closed = asyncio.Event()
    async with server(hangs_after(CHUNKED + b"3\r\nabc\r\n", closed)) as url:
        async with transport.send(Call("GET", url, {}), CLOCKS) as reply:
            await reply.more()
        async with asyncio.timeout(5):
            await closed.wait()


@pytest.mark.parametrize("head", [b"", CHUNKED, CHUNKED + b"3\r\nabc\r\n"], ids=["head", "first", "next"])
async def test_being_cancelled_closes_the_connection(transport: Transport, head: bytes) -> None:
    """Wherever it waits: for the head, for the first piece, or in the middle."""
    closed, asked = asyncio.Event(), asyncio.Event()
    async with server(hangs_after(head, closed, asked)) as url:
        reading = asyncio.create_task(fetched(transport, url))
        await asked.wait()
        await asyncio.sleep(0.02)
        reading.cancel()
        async with asyncio.timeout(5):
            await closed.wait()
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_a_connection_whose_reply_was_read_is_used_again(transport: Transport) -> None:
    """A new connection per request costs a round trip and, with TLS, milliseconds of CPU."""
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            writer.write(JSON_HEAD + b"content-length: 2\r\n\r\n{}")
            await reader.readuntil(b"\r\n\r\n")

    async with server(handle) as url:
        for _ in range(3):
            assert await fetched(transport, url) == b"{}"
    assert connections == 1


async def test_a_timed_out_connection_is_not_used_again(transport: Transport) -> None:
    """Its late reply would answer somebody else's request."""
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(JSON_HEAD + b"content-length: 2\r\n\r\n{")
        await reader.read()

    async with server(handle) as url:
        for _ in range(2):
            with pytest.raises(TimedOut):
                await fetched(transport, url, CLOCKS._replace(total=5 * SOON))
    assert connections == 2


async def test_a_closed_transport_opens_again_when_needed(transport: Transport) -> None:
    async with server(says(JSON_HEAD + b"\r\n{}")) as url:
        assert await fetched(transport, url) == b"{}"
        await transport.close()
        await transport.close()
        assert await fetched(transport, url) == b"{}"


@pytest.mark.parametrize(
    "clocks", [CLOCKS._replace(total=1.0), CLOCKS._replace(first_token=1.0)], ids=["total", "first"]
)
async def test_a_clock_rings_though_the_upstream_always_has_data(transport: Transport, clocks: Clocks) -> None:
    """One that sends without end must not hold a request, nor the event loop, for longer than it may."""
    lags: list[float] = []

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(JSON_HEAD + b"\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            lags.append(loop.time() - before)

    async with server(flood) as url, asyncio.timeout(30):
        watching = asyncio.get_running_loop().create_task(watch())
        with pytest.raises(TimedOut):
            async with transport.send(Call("GET", url, {}), clocks) as reply:
                while await reply.more():
                    pass
        watching.cancel()
    assert len(lags) > 3, "others had their turns"


async def test_the_deadline_stands_though_the_consumer_is_slow(transport: Transport) -> None:
    """The upstream's clocks wait for a slow client; the caller's own deadline does not."""
    deadline = time.monotonic() + 0.3
    async with server(says(CHUNKED + b"1\r\na\r\n", b"1\r\nb\r\n", then="hang")) as url:
        with pytest.raises(TimedOut):
            async with transport.send(Call("GET", url, {}), CLOCKS._replace(total=5.0, deadline=deadline)) as reply:
                await reply.more()
                await asyncio.sleep(0.4)
                while await reply.more():
                    pass


async def test_a_connection_that_was_idle_too_long_is_closed() -> None:
    """The server is about to close it too, and a request sent into that would be lost."""
    transport, closed = HttpTransport(keepalive=0.2), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(JSON_HEAD + b"content-length: 2\r\n\r\n{}")
        await reader.read()
        closed.set()

    async with server(handle) as url:
        assert await fetched(transport, url) == b"{}"
        async with asyncio.timeout(5):
            await closed.wait()
        assert await fetched(transport, url) == b"{}"
    await transport.close()


async def test_a_kept_connection_that_was_lost_meanwhile_is_not_used(transport: Transport) -> None:
    async with server(says(JSON_HEAD + b"content-length: 2\r\n\r\n{}")) as url:
        for _ in range(2):
            assert await fetched(transport, url) == b"{}"
            await asyncio.sleep(0.05)


async def test_a_kept_connection_that_is_about_to_be_closed_is_not_used() -> None:
    """What is swept seldom may be older than servers keep it, and this machine may be late besides."""
    transport, connections = HttpTransport(keepalive=SOON), 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            writer.write(JSON_HEAD + b"content-length: 2\r\n\r\n{}")
            await reader.readuntil(b"\r\n\r\n")

    async with server(handle) as url:
        assert await fetched(transport, url) == b"{}"
        time.sleep(2 * SOON)  # the event loop is busy, and sweeps nothing
        assert await fetched(transport, url) == b"{}"
    assert connections == 2
    await transport.close()


async def test_a_header_is_one_line(transport: Transport) -> None:
    """Two would let whoever chose its value write headers, or requests, of their own."""
    async with server(says(JSON_HEAD + b"content-length: 2\r\n\r\n{}")) as url:
        with pytest.raises(InternalError):
            async with transport.send(Call("GET", url, {"x-a": "1\r\nx-b: 2"}), CLOCKS):
                pass
