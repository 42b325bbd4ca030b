"""What uvicorn does not do by itself: bounds on headers, and on connections that are opened or half sent and then left.

Also keeps the send buffer small, so that a client that reads nothing is felt at once, and offers to cut a connection
that takes nothing (the ASGI extension `tierway.abort`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.inbound import ABORT
from app.core.errors import GatewayError, HeadersTooLarge, InvalidValue, RequestTimeout
from app.wire.objects import write_error

HEADER_BYTES_MAX: Final = 32_768
HEADER_FIELDS_MAX: Final = 100
SEND_BUFFER_BYTES: Final = 32_768  # Linux doubles it
DEAD_PEER_MS: Final = 30_000
REASONS: Final = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class Refusal(Exception):
    """Raised through the parser, so that it does not go on with a request that was refused."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds on the head of a request."""

    head_seconds = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._head_fields = 0
        self._unparsed_bytes = 0
        self._in_head = False
        self._fresh_head = False  # it began in the data at hand, nobody knows where

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError, AttributeError):  # a Unix socket, or another system than Linux
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._fresh_head = False
        super().data_received(data)
        if not self._in_head:
            if self._head_timer is None and not self._answering:
                self._start_timer()  # bytes that begin no request have stopped uvicorn's own timer
        elif not self._fresh_head:  # a line without an end is not shown to the parser's callbacks
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > HEADER_BYTES_MAX:
                self._refuse(HeadersTooLarge("The head of the request is too large."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._fresh_head = True
        self._head_bytes = self._head_fields = self._unparsed_bytes = 0
        self._start_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_fields += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._head_fields > HEADER_FIELDS_MAX or self._head_bytes > HEADER_BYTES_MAX:
            self._refuse(HeadersTooLarge(f"At most {HEADER_FIELDS_MAX} header fields of {HEADER_BYTES_MAX} bytes."))
            raise Refusal
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._head_bytes + len(self.url) > HEADER_BYTES_MAX:
            self._refuse(HeadersTooLarge("The head of the request is too large."))
            raise Refusal
        self._stop_timer()
        self._in_head = False
        extensions: dict[Any, Any] = {ABORT: self.transport.abort}
        self.scope["extensions"] = extensions
        super().on_headers_complete()

    @property
    def _answering(self) -> bool:
        # uvicorn says that there is always a cycle; before the first request there is none
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

    def _start_timer(self) -> None:
        self._stop_timer()
        self._head_timer = self.loop.call_later(self.head_seconds, self._late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _late(self) -> None:
        self._head_timer = None
        if self._answering:  # what is sent ahead waits its turn, and perhaps we do not even read it
            self._start_timer()
        elif self._in_head:
            self._refuse(RequestTimeout("The head of the request did not arrive in time."))
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets our error shape, too."""
        self._refuse(InvalidValue(f"The request is not HTTP as we know it: {msg}"))

    def _refuse(self, error: GatewayError) -> None:
        """Answers what never became a request, but not into the middle of another answer; and closes."""
        if self.transport.is_closing():
            return
        body = write_error(error)
        head = (
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % (error.status, REASONS[error.status], len(body))
        )
        if not self.pipeline and not (self._answering and self.cycle.response_started):
            self.transport.write(head + body)
        self.transport.close()
