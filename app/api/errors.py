"""Errors, rendered once: a status, the dialect's body, and the headers that tell a client what to do next."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from app.access.limits import header_rows
from app.api.inbound import Headers, Inbound
from app.core.errors import (
    GatewayError,
    InternalError,
    MethodNotAllowed,
    RateLimited,
    RequestTimeout,
    RequestTooLarge,
    ShuttingDown,
)

WriteError = Callable[[GatewayError], bytes]


def shown(error: BaseException, request_id: str) -> GatewayError:
    """The error a client may see: a fault of ours says the request id and nothing else. Who cancels a request that has
    its client is the server, at the end of its grace."""
    if isinstance(error, asyncio.CancelledError):
        return ShuttingDown("The gateway is shutting down.", retry_after=1)
    if isinstance(error, GatewayError) and not isinstance(error, InternalError):
        return error
    return InternalError(f"The gateway failed on this request. Its id is {request_id}.")


def error_headers(error: GatewayError, request_id: str, body: bytes) -> Headers:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
    ]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
    if error.client_may_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.client_may_retry else b"false"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    if isinstance(error, RateLimited):
        headers += header_rows(error.rates)
    if isinstance(error, (RequestTooLarge, RequestTimeout, ShuttingDown)):
        # The rest of the body may still be on its way; and who stops wants to be rid of kept connections.
        headers.append((b"connection", b"close"))
    return headers


async def send_error(inbound: Inbound, error: GatewayError, write_error: WriteError) -> None:
    """Sends the whole reply."""
    body = write_error(error)
    await inbound.begin(error.status, error_headers(error, inbound.request_id, body))
    await inbound.write(body)
