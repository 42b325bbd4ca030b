"""A small HTTP/1.1 server on which nothing is out of reach: any byte may be the last, and a port may stop listening.

It parses requests, asks `answer` for a script and plays it. What is asked and answered is not its business. It sees
when a client leaves in the middle, and ends the reply then, as real servers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import unquote

import httptools

from app.core.tasks import TaskOwner
from app.simulator.record import Call
from app.simulator.script import Break, Hang, Head, Queue, Script, Wait

REASONS: Final = {
    200: "OK",
    202: "Accepted",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    529: "Overloaded",
}
_LINGER_NOT: Final = struct.pack("ii", 1, 0)
_BODY_LIMIT: Final = 64 * 1024 * 1024


class Gate:
    """How many replies may be under way at once; None: any number. Others wait their turn."""

    def __init__(self, places: int | None = None) -> None:
        self.running = 0
        self._places = places
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def full(self, queue: int | None) -> bool:
        """Whether a further reply would find all places taken and `queue` others waiting."""
        return (
            None not in (queue, self._places) and self.running >= (self._places or 0) and self.waiting >= (queue or 0)
        )

    async def enter(self) -> None:
        if self._places is None or self.running < self._places:
            self.running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            else:
                self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the place changes hands
                return
        self.running -= 1


class Listener:
    """A port, its connections, and who answers them."""

    def __init__(self, answer: Callable[[Call], Script], tasks: TaskOwner, gate: Gate) -> None:
        self.answer = answer
        self.tasks = tasks
        self.gate = gate
        self.connections: set[Connection] = set()
        self.host = "127.0.0.1"
        self.port = 0
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> None:
        """Takes connections; the port stays the same when it listens again."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, port, reuse_address=True, backlog=1024)
        self.host, self.port = host, self._server.sockets[0].getsockname()[1]

    async def accept(self) -> None:
        """Listens again after `refuse`."""
        if self._server is None:
            await self.listen(self.host, self.port)

    def refuse(self) -> None:
        """New connections are refused from now on; open ones go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        self.refuse()
        for connection in tuple(self.connections):
            connection.drop()
        await self.tasks.cancel()
        await asyncio.sleep(0)  # lets the loop close the sockets


class Connection(asyncio.Protocol):
    """One client's connection: requests in, scripts out, one after the other."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._calls: deque[Call] = deque()
        self._task: asyncio.Task[None] | None = None
        self._current: Call | None = None
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses
        self._listener.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._listener.connections.discard(self)
        self._writable.set()
        if self._current is not None:
            self._current.left()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.drop()

    # --- what the parser calls ---

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body, self._size = b"", {}, [], 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _BODY_LIMIT:
            self.drop()
            return
        self._body.append(data)

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode("latin-1")
        keep = self._parser.should_keep_alive()
        self._calls.append(Call(method, unquote(path), query, self._headers, b"".join(self._body), keep))
        if self._task is None:
            self._task = self._listener.tasks.spawn(self._serve(), "simulated connection")

    # --- playing scripts ---

    async def _serve(self) -> None:
        whole = False
        try:
            while self._calls and self._transport is not None:
                self._current = call = self._calls.popleft()
                await self._play(self._listener.answer(call), call.method == "HEAD")
                self._current = None
                call.over()
                if not call.keep_alive and self._transport is not None:
                    self._transport.close()
            whole = True
        finally:
            self._task = None
            if not whole:
                self.drop()

    async def _play(self, script: Script, head_only: bool) -> None:
        entered = False
        player = _Player(self, head_only)
        try:
            for step in script:
                if type(step) is bytes:
                    if not self._writable.is_set():
                        await self._writable.wait()
                    player.body(step)
                    continue
                match step:
                    case Head():
                        player.head(step)
                    case Wait(seconds):
                        player.flush()
                        await asyncio.sleep(seconds)
                    case Queue():
                        await self._listener.gate.enter()
                        entered = True
                    case Hang():
                        player.flush()
                        await asyncio.Event().wait()
                    case Break(reset):
                        await self._break(player, reset)
                        return
            player.end()
        finally:
            if entered:
                self._listener.gate.leave()

    async def _break(self, player: _Player, reset: bool) -> None:
        player.flush()
        # What was said before reaches the client first; a reset would overtake it.
        await asyncio.sleep(0.02 if reset else 0)
        if self._current is not None:
            self._current.over()
            self._current = None
        if reset:
            self.drop(reset=True)
        elif self._transport is not None:
            self._transport.close()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():  # a client may leave amid many writes
            self._transport.write(data)

    def drop(self, *, reset: bool = False) -> None:
        """Ends the connection at once."""
        self._current = None  # it is us who leave
        if self._transport is None:
            return
        if reset:
            found = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError, AttributeError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._transport.abort()


class _Player:
    """Frames what a script sends: the status line, then a body of known length or in chunks."""

    def __init__(self, connection: Connection, head_only: bool) -> None:
        self._connection = connection
        self._head_only = head_only
        self._held = b""
        self._chunked = False

    def head(self, head: Head) -> None:
        # Held back until something follows, so that a small reply is one write.
        self._chunked = head.length is None and not self._head_only
        self._held = _head_bytes(head)

    def body(self, data: bytes) -> None:
        if self._head_only or not data:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._held:
            data, self._held = self._held + data, b""
        self._connection.write(data)

    def flush(self) -> None:
        if self._held:
            self._connection.write(self._held)
            self._held = b""

    def end(self) -> None:
        if self._chunked:
            self._held += b"0\r\n\r\n"
        self.flush()


def _head_bytes(head: Head) -> bytes:
    length = "transfer-encoding: chunked" if head.length is None else f"content-length: {head.length}"
    more = "".join(f"{name}: {value}\r\n" for name, value in head.headers)
    line = f"HTTP/1.1 {head.status} {REASONS.get(head.status, 'Unknown')}\r\n"
    return f"{line}content-type: {head.content_type}\r\n{length}\r\n{more}\r\n".encode("latin-1")
