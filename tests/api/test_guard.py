"""Without these a client holds a connection or our memory for nothing, or a sound request is refused: over raw sockets,
because only there a request can be cut, late, endless or no HTTP at all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio
import uvicorn

from app.api.front import Front, InFlight, TokenPath
from app.api.guard import AHEAD_MAX, HEADER_BYTES_MAX, HEADER_FIELDS_MAX, GuardedProtocol
from app.api.inbound import ABORT, Inbound, Receive, Scope, Send
from app.api.shedding import FULL
from app.core.buffers import Buffers
from app.wire.objects import write_error
from tests.api.wire import soon

PATH = "/echo"

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Quick(GuardedProtocol):
    head_seconds = 0.15


class Gate:
    """The application: says back how long the body was, and on `/slow` begins at once and ends when told."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.go = asyncio.Event()
        self.pressure: str | None = None
        self.cut = False
        self.front = Front(
            {
                path: TokenPath(self.endpoint, write_error)
                for path in (PATH, "/slow", "/early", "/refuse", "/abort", "/wait")
            },
            self.rest,
            in_flight_limit=10,
            on_error=lambda where, error: None,
            in_flight=InFlight(),
            pressure=lambda: self.pressure,
        )

    async def endpoint(self, inbound: Inbound) -> None:
        path = inbound.scope["path"]
        self.paths.append(path)
        if path == "/refuse":
            return await self.answer(inbound, b"refused")
        if path == "/abort":
            inbound.scope["extensions"][ABORT]()
        if path in ("/abort", "/wait"):
            await inbound.gone()
            self.cut = True
            return None
        body = b"" if path == "/early" else await inbound.body(1_000_000)
        if path in ("/slow", "/early"):
            await inbound.begin(200, [])
            await inbound.write(b"begun", more=True)
            await self.go.wait()
            return await inbound.write(b"over")
        return await self.answer(inbound, b"%d" % len(body))

    async def answer(self, inbound: Inbound, body: bytes) -> None:
        await inbound.begin(200, [(b"content-length", b"%d" % len(body))])
        await inbound.write(body)

    async def rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"][FULL] = self.front.turned_away
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        self.paths.append(scope["path"])
        await self.answer(Inbound.of(scope, receive, send), b"rest")


class Server:
    def __init__(self, gate: Gate, address: Any, server: uvicorn.Server) -> None:
        self.gate, self.address, self.uvicorn = gate, address, server
        self.lines: list[Line] = []

    async def connect(self) -> Line:
        client = socket.socket()
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, self.address)
        self.lines.append(Line(client))
        return self.lines[-1]


class Line:
    """A client's end: a bare socket, which gives what had come also after the server has closed."""

    def __init__(self, client: socket.socket) -> None:
        self._socket = client
        self._loop = asyncio.get_running_loop()
        self._read = b""

    def close(self) -> None:
        self._socket.close()

    async def send(self, *data: bytes) -> None:
        """Each piece on its own."""
        with contextlib.suppress(ConnectionError):
            for piece in data:
                await self._loop.sock_sendall(self._socket, piece)
                await asyncio.sleep(0.003)

    async def until(self, end: bytes) -> bytes:
        async with asyncio.timeout(3):
            while end not in self._read:
                data = await self._loop.sock_recv(self._socket, 65_536)
                assert data, self._read
                self._read += data
        found, _, self._read = self._read.partition(end)
        return found + end

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        """One reply whose length is known."""
        head = (await self.until(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        size = int(headers["content-length"])
        async with asyncio.timeout(3):
            while len(self._read) < size:
                self._read += await self._loop.sock_recv(self._socket, 65_536)
        body, self._read = self._read[:size], self._read[size:]
        return int(head[0].split()[1]), headers, body

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(3):
            with contextlib.suppress(ConnectionError):
                while data := await self._loop.sock_recv(self._socket, 65_536):
                    self._read += data
        return self._read

    async def is_refused(self, status: int, code: str) -> None:
        """An error in our shape, and then the end."""
        got, headers, body = await self.reply()
        error = orjson.loads(body)["error"]
        assert (got, error["code"], error["type"]) == (status, code, "invalid_request_error")
        assert error.keys() == {"message", "type", "param", "code"}
        assert headers["content-type"] == "application/json" and headers["connection"] == "close"
        assert await self.rest() == b""


def post(body: bytes = b"", path: str = PATH, *headers: str, length: int | None = None) -> bytes:
    head = [f"POST {path} HTTP/1.1", "host: gateway", f"content-length: {length or len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def serving(keep_alive: int = 5) -> AsyncIterator[Server]:
    gate = Gate()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        gate.front,
        interface="asgi3",
        http=Quick,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))
    await soon(lambda: server.started)
    running = Server(gate, listener.getsockname(), server)
    try:
        yield running
    finally:
        for line in running.lines:
            line.close()
        gate.go.set()
        server.should_exit = True
        await task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.gate.paths.clear()
    running.gate.go.clear()
    running.gate.cut, running.gate.pressure = False, None
    return running


@pytest_asyncio.fixture(loop_scope="module")
async def line(server: Server) -> AsyncIterator[Line]:
    line = await server.connect()
    yield line
    line.close()
    server.gate.go.set()


# --- requests for which there is no room ---


async def test_what_there_is_no_room_for_is_turned_away_on_its_connection(server: Server, line: Line) -> None:
    """Before its body is there and without a task; and once there is room, the same connection is served."""
    server.gate.pressure = "memory"
    await line.send(post(b"", PATH, "x-request-id: mine", length=100_000))
    status, headers, answer = await line.reply()
    assert (status, headers["x-request-id"], headers["retry-after"]) == (503, "mine", "1")
    assert orjson.loads(answer)["error"]["code"] == "overloaded" and server.gate.paths == []
    await line.send(b"x" * 50_000, b"x" * 50_000)
    server.gate.pressure = None
    await line.send(post(b"abc"))
    assert (await line.reply())[2] == b"3"


async def test_one_turned_away_after_the_other_on_one_connection(server: Server, line: Line) -> None:
    server.gate.pressure = "memory"
    await line.send(post(b"a") + post(b"b"))
    assert [(await line.reply())[0] for _ in range(2)] == [503, 503]
    await line.send(post(b"c", "/other"))
    assert (await line.reply())[2] == b"rest", "what is no token path is the application's affair"


async def test_who_is_turned_away_and_wants_no_more_is_let_go(server: Server, line: Line) -> None:
    server.gate.pressure = "memory"
    await line.send(post(b"abc", PATH, "connection: close"))
    assert (await line.rest()).startswith(b"HTTP/1.1 503")


@pytest.mark.parametrize(("path", "pressure", "status"), [(PATH, "memory", b"503"), ("/refuse", None, b"200")])
async def test_who_has_his_answer_and_goes_on_in_no_http_gets_no_other(
    server: Server, line: Line, path: str, pressure: str | None, status: bytes
) -> None:
    """A proxy that shares the connection would take the second answer for the next client's."""
    server.gate.pressure = pressure
    await line.send(f"POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    await line.until(status)
    await line.send(b"none\r\n")
    assert b"HTTP/1.1" not in await line.rest()


async def test_who_is_turned_away_and_never_sends_his_body_is_let_go(server: Server, line: Line) -> None:
    server.gate.pressure = "memory"
    await line.send(post(b"abc", length=1_000))
    assert (await line.rest()).startswith(b"HTTP/1.1 503")


async def test_who_takes_no_refusals_is_not_written_ever_more(server: Server, line: Line) -> None:
    """A refusal is longer than the request it answers: one connection could fill the memory of a gateway that is short
    of it."""
    server.gate.pressure = "memory"
    await line.send(*[post() * 1_000] * 40)
    connections = server.uvicorn.server_state.connections
    assert sum(each.transport.get_write_buffer_size() for each in connections) < 1_000_000
    assert (await line.rest()).startswith(b"HTTP/1.1 503")


async def test_what_stands_behind_an_answer_is_not_turned_away_before_it(server: Server, line: Line) -> None:
    """Replies come in the order of their requests."""
    await line.send(post(path="/slow"))
    await line.until(b"begun")
    server.gate.pressure = "memory"
    await line.send(post(b"abc"))
    server.gate.go.set()
    rest = await line.until(b'"overloaded"')
    assert rest.index(b"over") < rest.index(b"503")


# --- sound requests -------------------------------------------------------------------------------------------------


async def test_requests_follow_each_other_on_one_connection(line: Line) -> None:
    for size in (0, 5, 200_000, 1):
        await line.send(post(b"x" * size))
        assert (await line.reply())[2] == b"%d" % size


async def test_a_reply_does_not_wait_for_its_own_head_to_be_acknowledged(server: Server, line: Line) -> None:
    """Else every answer on a kept connection comes 40 ms late."""
    await line.send(post(b"x"))
    await line.reply()
    (connection,) = server.uvicorn.server_state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_request_may_come_in_crumbs(line: Line) -> None:
    data = post(b"abc")
    await line.send(*[data[at : at + 3] for at in range(0, len(data), 3)])
    assert (await line.reply())[2] == b"3"


async def test_requests_behind_large_bodies_are_served(line: Line) -> None:
    """A head that begins in the same packet as 100 KB of the body before it is not a head of 100 KB."""
    following = post(b"abc")
    await line.send(post(b"x" * 100_000) + following[:20])
    await line.send(following[20:40])
    await line.send(following[40:])
    assert [(await line.reply())[2] for _ in range(2)] == [b"100000", b"3"]


async def test_many_requests_sent_ahead_are_all_answered(line: Line) -> None:
    await line.send(b"".join(post(b"x" * 40_000 * (size % 3)) for size in range(9)))
    assert [(await line.reply())[2] for _ in range(9)] == [b"%d" % (40_000 * (size % 3)) for size in range(9)]


async def test_so_many_may_be_sent_ahead_and_no_more(server: Server, line: Line) -> None:
    """Each waits in memory, and costs its sender a few bytes: two gigabytes took one client fifteen seconds."""
    await line.send(post(path="/slow") + post() * (2 * AHEAD_MAX))
    await line.until(b"begun")
    server.gate.go.set()
    answers = await line.rest()
    assert answers.count(b"HTTP/1.1 200 OK") == AHEAD_MAX and answers.endswith(b"connection: close\r\n\r\n0")
    assert len(server.gate.paths) == 1 + AHEAD_MAX


async def test_what_waits_of_a_body_is_not_copied_for_each_piece_that_follows(server: Server, line: Line) -> None:
    """Else a client whose body waits, two megabytes long, holds up all others for a second with 60 KB of crumbs."""
    crumb = b"1\r\na\r\n"
    head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    await line.send(post(path="/wait"))
    await soon(lambda: server.gate.paths)
    await line.send(head + 2 * crumb)
    (connection,) = [
        each for each in server.uvicorn.server_state.connections if isinstance(each, Quick) and each.pipeline
    ]
    waiting = connection.cycle.body
    connection.data_received(crumb)
    assert connection.cycle.body is waiting and waiting == b"aaa"


async def test_requests_sent_ahead_wait_for_a_long_answer(server: Server, line: Line) -> None:
    """The answer lasts longer than a head may take, and we do not even read on meanwhile: it is no fault of theirs."""
    following = post(b"abc")
    await line.send(post(path="/slow") + following + following[:10])
    await asyncio.sleep(0.4)
    server.gate.go.set()
    await line.send(following[10:])
    assert b"over" in await line.until(b"0\r\n\r\n")
    assert [(await line.reply())[2] for _ in range(2)] == [b"3", b"3"]


async def test_the_largest_head_that_is_allowed_is_taken(line: Line) -> None:
    headers = [f"x-{index}: {'y' * 300}" for index in range(HEADER_FIELDS_MAX - 3)]
    assert sum(map(len, headers)) < HEADER_BYTES_MAX
    await line.send(post(b"abc", PATH, *headers))
    assert (await line.reply())[2] == b"3"


async def test_a_body_may_take_longer_than_a_head(line: Line) -> None:
    await line.send(post(b"a", length=3))
    await asyncio.sleep(0.4)
    await line.send(b"bc")
    assert (await line.reply())[2] == b"3"


OFFERS = [
    ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    ("Upgrade: websocket", "Connection: keep-alive, Upgrade"),
]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("size", [9, 50, 100_000])
async def test_an_offer_of_another_protocol_is_passed_over(line: Line, offer: tuple[str, ...], size: int) -> None:
    """Java's client offers HTTP/2 with every first request; without this the body of it is lost."""
    data = post(b"abc" * 50, PATH, *offer)
    await line.send(*[data[at : at + size] for at in range(0, len(data), size)])
    assert (await line.reply())[2] == b"150"
    await line.send(post(b"", "/other", *offer) + post(b"abcd", PATH, *offer) + post(b"x", PATH))
    assert [(await line.reply())[2] for _ in range(3)] == [b"rest", b"4", b"1"]


@pytest.mark.parametrize("offer", OFFERS)
async def test_an_offer_with_a_body_in_chunks_is_passed_over(line: Line, offer: tuple[str, ...]) -> None:
    head = "\r\n".join([f"POST {PATH} HTTP/1.1", "host: x", "transfer-encoding: chunked", *offer, "", ""])
    await line.send(head.encode() + b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n" + post(b"abc"))
    assert [(await line.reply())[2] for _ in range(2)] == [b"5", b"3"]


async def test_an_offer_on_a_connection_that_is_to_close_is_passed_over(line: Line) -> None:
    await line.send(post(b"abc", PATH, "connection: upgrade, close", "upgrade: h2c"))
    assert (await line.reply())[2] == b"3" and await line.rest() == b""


async def test_an_offer_in_too_large_a_head_is_refused(line: Line) -> None:
    await line.send(post(b"abc", PATH, *OFFERS[0], "x: " + "y" * HEADER_BYTES_MAX))
    await line.is_refused(431, "headers_too_large")


async def test_a_tunnel_is_no_offer(line: Line) -> None:
    """It has no body, so nothing is lost; read again, it would be so without end."""
    await line.send(b"CONNECT /x HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n" + post(b"abc"))
    assert [(await line.reply())[2] for _ in range(2)] == [b"rest", b"3"]


async def test_an_answer_before_the_body_leaves_the_connection_usable(line: Line) -> None:
    """What was refused at its head may still be on its way."""
    await line.send(post(b"x" * 50_000, "/refuse", length=100_000))
    assert (await line.reply())[2] == b"refused"
    await line.send(b"x" * 50_000 + post(b"abc"))
    assert (await line.reply())[2] == b"3"


# --- heads without bounds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [f"x-{index}: y" for index in range(HEADER_FIELDS_MAX)],
        ["x: " + "y" * HEADER_BYTES_MAX],
        [f"x-{index}: {'y' * 1000}" for index in range(40)],
    ],
)
async def test_too_large_a_head_is_refused(server: Server, line: Line, headers: list[str]) -> None:
    await line.send(post(b"abc", PATH, *headers))
    await line.is_refused(431, "headers_too_large")
    assert server.gate.paths == []


async def test_too_long_an_address_is_refused(server: Server, line: Line) -> None:
    await line.send(post(b"abc", "/" + "x" * HEADER_BYTES_MAX))
    await line.is_refused(431, "headers_too_large")
    assert server.gate.paths == []


@pytest.mark.parametrize("start", [b"POST /", b"POST / HTTP/1.1\r\nx: ", b"POST / HTTP/1.1\r\nx"])
async def test_a_line_without_an_end_is_refused(line: Line, start: bytes) -> None:
    """It is no header yet, so nothing else would count it."""
    await line.send(start, *[b"y" * 10_000] * 8)
    await line.is_refused(431, "headers_too_large")


async def test_after_a_refusal_nothing_more_is_read(line: Line) -> None:
    await line.send(post(b"", PATH, "x: " + "y" * HEADER_BYTES_MAX) + post(b"abc") + b"garbage\r\n\r\n")
    await line.is_refused(431, "headers_too_large")


# --- late ones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"P", b"POST / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nhost: x\r\n"])
async def test_a_head_that_does_not_come_to_its_end_is_given_up(line: Line, start: bytes) -> None:
    await line.send(start)
    await line.is_refused(408, "request_timeout")


async def test_a_head_that_drips_is_given_up(line: Line) -> None:
    await line.send(*[bytes((byte,)) for byte in post(b"", PATH, "x: " + "y" * 200)[:200]])
    await line.is_refused(408, "request_timeout")


async def test_the_second_head_is_given_up_too(line: Line) -> None:
    await line.send(post(b"abc"))
    await line.reply()
    await line.send(b"POST /")
    await line.is_refused(408, "request_timeout")


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n\r\n"])
async def test_a_connection_without_a_request_is_closed(line: Line, data: bytes) -> None:
    await line.send(data)
    assert await line.rest() == b""


async def test_a_connection_that_fell_idle_is_closed() -> None:
    async with serving(keep_alive=1) as server:
        line = await server.connect()
        await line.send(post(b"abc"))
        await line.reply()
        assert await line.rest() == b""


@pytest.mark.parametrize("data", [b"\r\n", b"\n"])
async def test_line_ends_do_not_keep_an_idle_connection(line: Line, data: bytes) -> None:
    """They begin no request, but they stop uvicorn's own timer."""
    await line.send(post(b"abc"))
    await line.reply()
    await line.send(data)
    assert await line.rest() == b""


async def test_a_body_that_nobody_waits_for_does_not_hold_the_connection(line: Line) -> None:
    await line.send(post(b"x", "/refuse", length=1000))
    assert (await line.reply())[2] == b"refused"
    await line.send(b"x")
    assert await line.rest() == b""


# --- no HTTP --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"SSH-2.0-x\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nnot a size\r\n",
    ],
)
async def test_what_is_not_http_gets_our_error(server: Server, line: Line, data: bytes) -> None:
    await line.send(data)
    await line.is_refused(400, "invalid_value")


async def test_no_error_is_written_into_another_answer(server: Server, line: Line) -> None:
    """Bytes of an error in the middle of a stream would be read as part of it."""
    await line.send(post(path="/slow"))
    await line.until(b"begun\r\n")
    await line.send(b"garbage\r\n\r\n", b"more garbage\r\n\r\n", post(b"abc"))
    server.gate.go.set()
    assert await line.rest() == b"4\r\nover\r\n0\r\n\r\n"


BROKEN_CHUNKS = b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nnot a size\r\n"


@pytest.mark.parametrize("broken", [b"garbage\r\n\r\n", post(b"", PATH, "x: " + "y" * HEADER_BYTES_MAX), BROKEN_CHUNKS])
@pytest.mark.parametrize("behind", [0, 1, 2])
async def test_answers_that_are_due_are_given_before_the_end(
    server: Server, line: Line, broken: bytes, behind: int
) -> None:
    """Else one bad request takes the answers of the sound ones before it, which were paid for, with it."""
    await line.send(post(path="/slow") + post(b"abc") * behind + broken)
    await asyncio.sleep(0.3)
    server.gate.go.set()
    await line.until(b"over\r\n0\r\n\r\n")
    assert [(await line.reply())[2] for _ in range(behind)] == [b"3"] * behind
    assert await line.rest() == b"" and server.gate.paths == ["/slow", *[PATH] * behind]


async def test_who_leaves_after_garbage_is_noticed(server: Server, line: Line) -> None:
    """Else an answer is made for nobody."""
    await line.send(post(path="/wait") + BROKEN_CHUNKS)
    line.close()
    await soon(lambda: server.gate.cut)


async def test_a_body_that_breaks_after_its_answer_began_ends_the_connection(server: Server, line: Line) -> None:
    await line.send(b"POST /early HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
    await line.until(b"begun\r\n")
    await line.send(b"not a size\r\n")
    assert await line.rest() == b""


# --- what the application relies on ---------------------------------------------------------------------------------


async def test_a_connection_can_be_cut(server: Server, line: Line, caplog: pytest.LogCaptureFixture) -> None:
    """The only way to be rid of a client that takes nothing."""
    await line.send(post(path="/abort"))
    assert await line.rest() == b""
    await soon(lambda: server.gate.cut)
    assert "without completing" not in caplog.text


async def test_what_a_client_does_not_take_is_felt_at_once(server: Server, line: Line) -> None:
    """With the system's own buffers, megabytes disappear before anybody notices."""
    await line.send(b"P")
    await soon(lambda: server.uvicorn.server_state.connections)
    for connection in server.uvicorn.server_state.connections:
        ours = connection.transport.get_extra_info("socket")
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * Buffers().send_socket
