"""What uvicorn does not do by itself: bounds on headers, and on connections that are opened or half sent and then left;
and a body also for a request that offers another protocol.

Also tells `backpressure` when a client does not keep up, and offers to cut a connection that takes nothing (the ASGI
extension `tierway.abort`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.api.backpressure import CLIENTS, USUAL, Backpressure
from app.api.head import at_once
from app.api.inbound import ABORT, LEAVING, WAITING
from app.api.joined import Joined
from app.api.shedding import FULL, Full, has_room
from app.core.errors import GatewayError, HeadersTooLarge, InvalidValue, RequestTimeout
from app.wire.objects import write_error

HEADER_BYTES_MAX: Final = 32_768
HEADER_FIELDS_MAX: Final = 100
AHEAD_MAX: Final = 64
"""So many requests may wait on one connection for the answer before theirs."""
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
        self._offered = False
        self._refused = False
        self._dropping = False
        self._running: RequestResponseCycle | None = None
        self._leaving: Callable[[], None] | None = None
        self._backpressure: Backpressure
        self._full: Full = self.app_state.get(FULL, has_room)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._backpressure = Backpressure(transport, self.app_state.get(CLIENTS, USUAL))
        self._extensions: dict[Any, Any] = {
            ABORT: transport.abort,
            WAITING: self._backpressure.waiting,
            LEAVING: self._on_leaving,
        }
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._backpressure.ends()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:  # uvicorn tells the newest request only
            self._running.disconnected = True
            self._running.message_event.set()
        if self._leaving is not None:
            self._leaving()

    def _on_leaving(self, call: Callable[[], None] | None) -> None:
        """Only the request that runs asks."""
        self._leaving = call
        if call is not None and self._running is not None and self._running.disconnected:
            call()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._backpressure.begins()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._backpressure.ends()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._refused:
            return
        self._fresh_head = False
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except HttpParserError:
            self._refuse(InvalidValue("The request is not HTTP as we know it."))
        if not self._in_head:
            if self._head_timer is None and not self._answering:
                self._start_timer()  # bytes that begin no request have stopped uvicorn's own timer
        elif self._fresh_head:
            self._start_timer()
        else:  # a line without an end is not shown to the parser's callbacks
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > HEADER_BYTES_MAX:
                self._refuse(HeadersTooLarge("The head of the request is too large."))

    def _parse(self, data: bytes | memoryview) -> None:
        """At the offer of another protocol the parser drops the body; it gets that head again, without the offer."""
        while data:
            try:
                return self.parser.feed_data(data)
            except HttpParserUpgrade as stop:
                data = memoryview(data)[stop.args[0] :]
                if self._offered:
                    self._offered = False
                    head = self._head_without_offer()
                    self.parser = HttpRequestParser(self)  # the old one may believe that the connection is closed
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                    self.parser.feed_data(head)

    def _head_without_offer(self) -> bytes:
        start = self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([start, *fields, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._fresh_head = True
        self._head_bytes = self._head_fields = self._unparsed_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_fields += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._head_fields > HEADER_FIELDS_MAX or self._head_bytes > HEADER_BYTES_MAX:
            self._refuse(HeadersTooLarge(f"At most {HEADER_FIELDS_MAX} header fields of {HEADER_BYTES_MAX} bytes."))
            raise Refusal
        name = name.lower()  # from here on as uvicorn has it, without another call for each
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._head_bytes + len(self.url) > HEADER_BYTES_MAX:
            self._refuse(HeadersTooLarge("The head of the request is too large."))
            raise Refusal
        if len(self.pipeline) >= AHEAD_MAX:  # uvicorn reads on with every answer, and keeps all that it reads
            self._refuse(InvalidValue(f"At most {AHEAD_MAX} requests may be sent ahead."))
            raise Refusal
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._offered = True
            return
        self._in_head = False
        if self._turned_away():
            self._start_timer()
            return
        self._stop_timer()
        self.scope["extensions"] = self._extensions
        super().on_headers_complete()
        self.cycle.body = b""  # type: ignore[assignment]  # bytes that come in one piece are handed on without a copy

    def _turned_away(self) -> bool:
        """Answers at once what there is no room for. Its body is dropped as it comes, while the head's time runs on.
        A client that does not take its answers waits for them in the application, which reads no further meanwhile."""
        if self._answering or self.expect_100_continue or self.parser.get_method() != b"POST":
            return False
        if self.flow.write_paused:
            return False
        reply = self._full(self.url, self.headers)
        if reply is None:
            return False
        self._dropping = True
        self.transport.write(reply)
        return True

    def on_body(self, body: bytes) -> None:
        if self._dropping:
            return
        waiting: Any = self.cycle.body
        if waiting and type(waiting) is bytes:  # which would be copied for each further piece
            self.cycle.body = bytearray(waiting)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._dropping:
            self._dropping = False
            if not self.parser.should_keep_alive():
                self.transport.close()
        elif not self._offered:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        cycle.transport = Joined(self.transport, self.loop)  # type: ignore[assignment]  # as much of one as it uses
        super()._start_asgi_task(cycle, at_once(app, cycle))

    @property
    def _answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

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

    def _refuse(self, error: GatewayError) -> None:
        """Answers what never became a request, and closes; answers due before it are finished instead."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if (last := self._last_due()) is not None:
            last.keep_alive = False
            self.flow.resume_reading()  # what comes is dropped, but that the client leaves must be seen
            return
        started = self._running is not None and self._running.response_started
        if self._in_head and not self._answering:
            started = False  # that was the answer to the request before
        if not (started or self._dropping):  # else a second answer would be taken for that to the next request
            self.transport.write(_reply(error))
        self.transport.close()

    def _last_due(self) -> RequestResponseCycle | None:
        """The last whole request that waits for its answer. One that broke off in its body is none."""
        if self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()
        last = self.pipeline[0][0] if self.pipeline else self._running
        return last if last is not None and not (last.response_complete or last.more_body) else None


def _reply(error: GatewayError) -> bytes:
    body = write_error(error)
    head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (error.status, REASONS[error.status], len(body)) + body
