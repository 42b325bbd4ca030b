"""Bounds for the requests that FastAPI serves, which itself reads a body of any size for as long as it takes.

A body is read once a route wants it, which is after it has asked for a key; then whole, and within bounds. The error
for one that is too large or too slow is raised inside FastAPI; `app` words it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.api.errors import send_error
from app.api.front import AsgiApp, InFlight
from app.api.inbound import Inbound, Message, Receive, Scope, Send, once_more
from app.api.shedding import TOO_MUCH
from app.core.errors import Shed
from app.wire.objects import write_error

BODY_BYTES: Final = 1_048_576
WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
OPERATORS: Final = "/admin/"
"""What is served however much there is to do: it may be what ends that."""


class Bounded:
    """Requests that may bring a body count as in flight, and beyond `limit` of them callers' are refused. `shed` is
    told of each."""

    def __init__(
        self, app: AsgiApp, in_flight: InFlight, limit: int, shed: Callable[[str], None] = lambda cause: None
    ) -> None:
        self._app = app
        self._in_flight = in_flight
        self._limit = limit
        self._shed = shed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in WITH_BODY:
            await self._app(scope, receive, send)
            return
        inbound = Inbound.of(scope, receive, send)
        self._in_flight.change(1)
        try:
            if self._in_flight.count > self._limit and not scope["path"].startswith(OPERATORS):
                self._shed("in_flight")
                error = Shed(TOO_MUCH, cause="in_flight")
                await send_error(inbound, error, write_error)
            else:
                await self._app(scope, _whole(inbound), send)
        finally:
            self._in_flight.change(-1)


def _whole(inbound: Inbound) -> Receive:
    """Gives the body in one piece, read when it is first asked for, then what comes after it."""
    read: Receive | None = None

    async def received() -> Message:
        nonlocal read
        if read is None:
            read = once_more(await inbound.body(BODY_BYTES), inbound.receive)
        return await read()

    return received
