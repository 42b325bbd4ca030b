"""Turns requests away for which there is no room: on the connection itself, before a task begins or a body is read.

At three times what a gateway can do, two of three requests are refused. A refusal by way of the application costs a
fifth of an answer; then the gateway would be busy with refusing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from app.api.errors import WriteError, error_headers
from app.api.inbound import request_id_of
from app.core.errors import Shed

FULL: Final = "tierway.full"
"""The name in the server's state under which the application says what it has no room for."""

TOO_MUCH: Final = "The gateway has as many requests in flight as it takes."

Fields = Sequence[tuple[bytes, bytes]]
Full = Callable[[bytes, Fields], bytes | None]
"""Of a POST's target and header fields: the whole reply that turns it away, None where there is room."""


def has_room(target: bytes, headers: Fields) -> bytes | None:
    return None


def refusal(cause: str, write_error: WriteError, headers: Fields) -> bytes:
    """The reply that turns a request of these header fields away. The connection stays as it is."""
    before, after = _around_id(cause, write_error)
    return before + request_id_of(dict(headers)).encode() + after


@functools.lru_cache(maxsize=64)
def _around_id(cause: str, write_error: WriteError) -> tuple[bytes, bytes]:
    """What stands before and after the request's id: the same for all that are turned away for one cause."""
    error = Shed(TOO_MUCH, cause=cause)
    body = write_error(error)
    lines = [b"HTTP/1.1 %d %s" % (error.status, HTTPStatus(error.status).phrase.encode())]
    lines += [name + b": " + value for name, value in error_headers(error, "", body)]
    before, name, after = b"\r\n".join((*lines, b"", body)).partition(b"x-request-id: ")
    return before + name, after
