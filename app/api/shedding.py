"""Turns requests away for which there is no room: on the connection itself, before a task begins or a body is read.

At three times what a gateway can do, two of three requests are refused. A refusal by way of the application costs a
fifth of an answer; then the gateway would be busy with refusing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from app.api.errors import WriteError, error_headers
from app.api.inbound import request_id_of
from app.core.errors import GatewayError

FULL: Final = "tierway.full"
"""The name in the server's state under which the application says what it has no room for."""

Fields = Sequence[tuple[bytes, bytes]]
Full = Callable[[bytes, Fields], bytes | None]
"""Of a POST's target and header fields: the whole reply that turns it away, None where there is room."""


def has_room(target: bytes, headers: Fields) -> bytes | None:
    return None


def refusal(error: GatewayError, write_error: WriteError, headers: Fields) -> bytes:
    """The reply with this error to a request of these header fields. The connection stays as it is."""
    request_id, body = request_id_of(dict(headers)), write_error(error)
    lines = [b"HTTP/1.1 %d %s" % (error.status, HTTPStatus(error.status).phrase.encode())]
    lines += [name + b": " + value for name, value in error_headers(error, request_id, body)]
    return b"\r\n".join((*lines, b"", body))
