"""One HTTP/1.1 connection to an upstream: one exchange at a time, read as it comes and not faster than it is taken.

The parser is httptools', the buffers are ours and bounded: once a little is waiting, the socket is not read. Whatever a
server does ends in one of our errors; its own words stay in the chained cause, because they may hold addresses.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import httptools

from app.core.buffers import Buffers
from app.core.errors import BadReply, Broken

HEAD_BYTES_MAX: Final = 65_536
"""Of heads, and of whatever else comes between two pieces of a body: sizes of chunks, what follows the last of them."""
HEADER_COST_BYTES: Final = 32
"""What a header counts for beside its own bytes, as in HTTP/2: many small ones cost us more than a large one."""
UNPACKED_BYTES: Final = 16_384  # what one piece of a compressed body becomes at most, before it is asked again
TURN_SECONDS: Final = 0.005
"""How long one body that never has to be waited for may keep the event loop busy before the others have their turn."""
BODILESS: Final = frozenset({204, 304})
GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32


class _NotRead(Exception):
    """Raised inside the parser's callbacks to stop it at what we do not read. The parser wraps it into an error of its
    own, so that it reaches nobody but `data_received`, as a cause."""


def nobody_counts(change: int) -> None:
    """What waits here shows nowhere."""


class Connection(asyncio.Protocol):
    """`idle_since` is when the last exchange was over, in monotonic seconds; None while one runs. `rested_at` is when
    its reader was given something last; None while he waits. `held` is told of bytes that wait for a reader who does
    not keep up, and of their leaving."""

    def __init__(self, buffers: Buffers | None = None, held: Callable[[int], None] = nobody_counts) -> None:
        self._most = (buffers or Buffers()).body
        self._held = held
        self.status = 0
        self.headers: dict[str, str] = {}
        self.idle_since: float | None = None
        self.rested_at: float | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._bodiless_bytes = self._header_bytes = 0
        self._paused_bytes = 0  # so many wait, and the socket is left alone
        self._head = self._whole = self._kept = self._closed = False
        self._until_closed = False
        self._unpacker: Unpacker | None = None
        self._turn_since = 0.0

    # --- what an exchange uses --------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        return not self._closed and self._error is None

    @property
    def reusable(self) -> bool:
        """Whether the reply was read whole and the server keeps the connection."""
        return self._kept and self._whole and not (self._body or self._closed) and self._error is None

    @property
    def finished(self) -> bool:
        """Whether nothing of the body is left to take."""
        return self._whole and not self._body and self._unpacker is None

    def send(self, request: bytes) -> None:
        """Begins an exchange."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self.status, self.headers, self._unpacker = 0, {}, None
        self._head = self._whole = self._kept = self._until_closed = False
        self._bodiless_bytes = self._header_bytes = 0
        self.idle_since = self.rested_at = None
        self._turn_since = time.monotonic()
        self._transport.write(request)

    async def head(self) -> None:
        """Waits until `status` and `headers` are there. Raises `Broken`, `BadReply`, or what the alarm says."""
        while not self._head:
            await self._arrival()
        self.rested_at = self._turn_since = time.monotonic()

    async def more(self) -> bytes:
        """The next bytes of the body, none at its end. Raises the same."""
        self.rested_at, unpacker = None, self._unpacker
        if (self._body or unpacker is not None) and time.monotonic() - self._turn_since > TURN_SECONDS:
            await asyncio.sleep(0)
            self._turn_since = time.monotonic()
        waited = False
        while True:
            if unpacker is not None:
                piece = self._unpacked(unpacker)
            else:
                piece = self._taken() if self._body else b"" if self._whole else None
            if piece is not None:
                break
            if self._paused_bytes:
                self._resume()
            await self._arrival()
            waited = True
        self.rested_at = now = time.monotonic()
        if waited:
            self._turn_since = now
        return piece

    def _unpacked(self, unpacker: Unpacker) -> bytes | None:
        """What can be had at once, none at the end of the body; None as long as there is nothing."""
        if piece := unpacker.rest():
            return piece
        while self._body:
            if piece := unpacker.feed(self._taken()):
                return piece
        if self._whole:
            unpacker.end()
        return b"" if self._whole else None

    def set_exception(self, error: BaseException) -> None:
        """Wakes whoever waits, with this; nothing more is read."""
        if self._error is None:
            self._error = error
        self._wake()

    def close(self) -> None:
        """At once: what an upstream still has to say, nobody waits for."""
        self._closed = True
        self._resume()
        if self._transport is not None:
            self._transport.abort()

    def _taken(self) -> bytes:
        """All that waits. Whoever takes it may be long about it, so the socket is read again only once there is
        nothing left to do, or nothing left to come."""
        body, self._body, self._body_bytes = self._body, [], 0
        piece = body[0] if len(body) == 1 else b"".join(body)
        if self._whole:
            self._resume()
        return piece

    @property
    def _waiting_bytes(self) -> int:
        return self._body_bytes + (0 if self._unpacker is None else self._unpacker.packed_bytes)

    def _pause(self) -> None:
        if self._transport is not None:
            self._paused_bytes = self._waiting_bytes
            self._held(self._paused_bytes)
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused_bytes:
            self._held(-self._paused_bytes)
            self._paused_bytes = 0
            if self._transport is not None and not self._closed:
                self._transport.resume_reading()

    def _arrival(self) -> asyncio.Future[None]:
        """Done when anything has happened. Raises what has happened already."""
        if self._error is not None:
            raise self._error
        if self._closed:
            raise Broken("The connection to the upstream broke.")
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- what the event loop calls ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if (bound := getattr(transport, "set_read_buffer_limits", None)) is not None:
            bound(self._most)  # what TLS may leave undecrypted

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self.idle_since is not None or self._whole:
            self.close()  # nobody asked: it would answer somebody else's request
            return
        before = self._body_bytes
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(error)
            return
        self._bodiless_bytes = self._bodiless_bytes + len(data) if self._body_bytes == before else 0
        if self._bodiless_bytes > HEAD_BYTES_MAX and not self._whole:
            self._fail(None)
            return
        waiting = self._body_bytes if self._unpacker is None else self._waiting_bytes
        if waiting > self._most and not self._paused_bytes:
            self._pause()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._parser = None  # each holds the other, and the collector of cycles comes seldom
        self._resume()
        if self._head and self._until_closed and exc is None:
            self._whole = True
        elif not self._whole and self._error is None:
            self._error = Broken("The connection to the upstream broke.")
            self._error.__cause__ = exc
        self._wake()

    def _fail(self, error: Exception | None) -> None:
        fault = BadReply("The upstream did not answer in HTTP as we know it.")
        fault.__cause__ = error
        self.set_exception(fault)
        self.close()

    # --- what the parser calls --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._whole:
            raise _NotRead("a reply that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + HEADER_COST_BYTES
        if self._header_bytes > HEAD_BYTES_MAX:
            raise _NotRead("too many headers")
        if self._head:  # a trailer: the head was acted on already
            return
        key, said = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {said}" if key in self.headers else said

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:  # an interim word; the reply itself follows
            self.headers = {}
            return
        self.status, self._head = status, True
        self._until_closed = _ends_with_connection(status, self.headers)
        self._unpacker = Unpacker.of(self.headers)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._head:
            assert self._parser is not None
            self._whole, self._kept = True, bool(self._parser.should_keep_alive())


class Unpacker:
    """A body that a server compressed although it was asked not to."""

    def __init__(self) -> None:
        self._stream: Any = zlib.decompressobj(GZIP_OR_ZLIB)

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Unpacker | None:
        """What reads a body with these headers; None where nothing is compressed."""
        match headers.get("content-encoding", "").strip().lower():
            case "" | "identity":
                return None
            case "gzip" | "x-gzip" | "deflate":
                return cls()
            case other:
                raise _NotRead(f"content-encoding {other[:40]!r}")

    @property
    def packed_bytes(self) -> int:
        """What waits here to be unpacked."""
        return len(self._stream.unconsumed_tail)

    def feed(self, data: bytes) -> bytes:
        """The beginning of what this becomes; the `rest` must be asked for before more is fed."""
        try:
            piece: bytes = self._stream.decompress(data, UNPACKED_BYTES)
        except zlib.error as error:
            raise BadReply("The upstream's compressed reply is broken.") from error
        if self._stream.unused_data:
            raise BadReply("The upstream's compressed reply goes on beyond its end.")
        return piece

    def rest(self) -> bytes:
        """What was fed holds beyond its parts so far: none when it is used up."""
        return self.feed(self._stream.unconsumed_tail) if self._stream.unconsumed_tail else b""

    def end(self) -> None:
        if not self._stream.eof:
            raise Broken("The upstream's compressed reply ended early.")


def _ends_with_connection(status: int, headers: Mapping[str, str]) -> bool:
    chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    return status not in BODILESS and not chunked and "content-length" not in headers
