"""Writes the head of a reply in one go. uvicorn looks at each header by itself, which for the many of ours is more work
than the rest of a reply; it still writes every head that is not of the usual kind, and all bodies.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from app.api.inbound import Message, Receive, Scope, Send

BODILESS: Final = (204, 304)
FRAMING: Final = (b"connection", b"transfer-encoding")


def at_once(app: Any, cycle: RequestResponseCycle) -> Any:
    """The application, for this one request."""

    def asked(scope: Scope, receive: Receive, send: Send) -> Any:
        return app(scope, receive, functools.partial(_send, cycle, send))

    return asked


def _send(cycle: RequestResponseCycle, send: Send, message: Message) -> Awaitable[None]:
    if cycle.response_started or not _began(cycle, message):
        return send(message)
    return _sent()


async def _sent() -> None:
    """It is on its way."""


def _began(cycle: RequestResponseCycle, message: Message) -> bool:
    """Whether this is the head of a usual reply; then it is written, and the cycle knows what uvicorn would know."""
    if message["type"] != "http.response.start" or cycle.flow.write_paused or cycle.disconnected:
        return False
    if cycle.access_log or not cycle.keep_alive or cycle.scope["method"] == "HEAD" or message["status"] in BODILESS:
        return False
    headers = [*cycle.default_headers, *message["headers"]]
    fields = dict(headers)
    names, values = b"".join(fields), b"".join([value for _, value in headers])
    if len(fields) < len(headers) or not names.islower() or HEADER_RE.search(names) or HEADER_VALUE_RE.search(values):
        return False
    if FRAMING[0] in fields or FRAMING[1] in fields:
        return False
    length = fields.get(b"content-length")
    end = b"transfer-encoding: chunked\r\n\r\n" if length is None else b"\r\n"
    cycle.response_started, cycle.waiting_for_100_continue = True, False
    cycle.chunked_encoding, cycle.expected_content_length = length is None, int(length or 0)
    lines = [b"%b: %b\r\n" % header for header in headers]
    cycle.transport.write(b"".join((STATUS_LINE[message["status"]], *lines, end)))
    return True
