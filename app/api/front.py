"""The first thing a request meets: sends token paths straight to their endpoints and everything else to FastAPI, and
is the last barrier for errors.

A FastAPI route costs 0.16 ms more than this; the token paths are in its OpenAPI document all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from app.api.errors import WriteError, send_error, shown
from app.api.inbound import Inbound, Receive, Scope, Send
from app.api.shedding import TOO_MUCH, Fields, refusal
from app.core.errors import ClientGone, GatewayError, MethodNotAllowed, Shed, ShuttingDown
from app.core.steps import Steps
from app.core.tasks import ErrorHandler

FEW: Final = 0.05
"""This share of the limit is served in any case: so few requests are not what is too much."""

Endpoint = Callable[[Inbound], Awaitable[None]]
Refused = Callable[[str, str, GatewayError, float, Steps | None], None]
Begin = Callable[[str | None], tuple[str, Steps | None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TokenPath:
    """A POST endpoint, how errors are written in its dialect, and its name in records."""

    endpoint: Endpoint
    write_error: WriteError
    name: str = "other"


class InFlight:
    """How many requests are being worked on, by all fronts that share it. `watch` is told whenever it changes."""

    __slots__ = ("_watch", "count")

    def __init__(self, watch: Callable[[int], None] = lambda count: None) -> None:
        self.count = 0
        self._watch = watch

    def change(self, by: int) -> None:
        self.count += by
        self._watch(self.count)


class Front:
    """`in_flight_limit` requests at a time are served on the token paths, the rest is refused before its body is read;
    and while `pressure` names a cause, all beyond a few. `shed` is told each cause, `on_error` of faults of ours;
    `refused` of what was answered with an error before the gateway ever had it: the path's name, the request's id, the
    error, seconds, its notes for a trace. `in_flight` counts; those of fronts that follow each other are one. `begin`
    begins the trace of a request by its `traceparent`, where there are any."""

    def __init__(
        self,
        paths: Mapping[str, TokenPath],
        rest: AsgiApp,
        *,
        in_flight_limit: int,
        on_error: ErrorHandler,
        in_flight: InFlight,
        refused: Refused = lambda name, request_id, error, seconds, steps: None,
        pressure: Callable[[], str | None] = lambda: None,
        shed: Callable[[str], None] = lambda cause: None,
    ) -> None:
        self._paths = dict(paths)
        self._rest = rest
        self._limit = in_flight_limit
        self._on_error = on_error
        self._in_flight = in_flight
        self._refused = refused
        self._pressure = pressure
        self._shed = shed
        self.stopping: Callable[[], bool] = lambda: False
        self.begin: Begin | None = None

    def turned_away(self, target: bytes, headers: Fields) -> bytes | None:
        """The reply to a POST for which there is no room; None where there is, or where the application itself must
        say so. For a server that answers before a request costs anything."""
        if (cause := self._too_much(self._in_flight.count + 1)) is None or self.stopping():
            return None
        if (path := self._paths.get(target.partition(b"?")[0].decode("latin-1"))) is None:
            return None
        self._shed(cause)
        return refusal(cause, path.write_error, headers)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = self._paths.get(scope["path"]) if scope["type"] == "http" else None
        if path is None:
            return self._rest(scope, receive, send)
        return self._serve(path, Inbound.of(scope, receive, send))

    async def _serve(self, path: TokenPath, inbound: Inbound) -> None:
        if self.begin is not None:
            inbound.trace_parent, inbound.steps = self.begin(inbound.header(b"traceparent"))
        self._in_flight.change(1)
        try:
            if inbound.scope["method"] != "POST":
                raise MethodNotAllowed(f"{inbound.scope['path']} takes POST requests.")
            if self.stopping():
                raise ShuttingDown("The gateway is shutting down.", retry_after=1)
            if (cause := self._too_much(self._in_flight.count)) is not None:
                self._shed(cause)
                raise Shed(TOO_MUCH, cause=cause)
            await path.endpoint(inbound)
        except ClientGone:
            pass
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the last barrier
            if not isinstance(error, (GatewayError, asyncio.CancelledError)):
                self._on_error(f"request {inbound.request_id}", error)
            seen = shown(error, inbound.request_id)
            if not inbound.taken and not isinstance(error, Shed):  # a line for each would be what is too much
                seconds = asyncio.get_running_loop().time() - inbound.started
                self._refused(path.name, inbound.request_id, seen, seconds, inbound.steps)
            if not inbound.answered:
                await send_error(inbound, seen, path.write_error)
        finally:
            self._in_flight.change(-1)

    def _too_much(self, count: int) -> str | None:
        if count > self._limit:
            return "in_flight"
        return self._pressure() if count > self._limit * FEW else None
