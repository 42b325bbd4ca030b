"""`GET /v1/streams/{id}`: goes on with a stream after the last event that its client got, from any gateway."""

from __future__ import annotations

from typing import Any, Final

import orjson
from fastapi import APIRouter, Header, Request, Response

from app.api.auth import Door
from app.api.errors import error_headers
from app.api.inbound import Inbound, peer_of
from app.api.line import LineTimes
from app.api.resumable import STREAM_ID, Resumed
from app.api.statuses import ERROR, answers, described
from app.core.errors import InvalidValue, StreamExpired
from app.core.money import usd
from app.gateway.resumable import Streams
from app.wire.objects import write_error

DIGITS_MAX: Final = 15
GONE: Final = "The events are gone: what the stream came to, for a day."
TOKENS: Final = ("prompt_tokens", "completion_tokens")


def streams_router(door: Door, streams: Streams, times: LineTimes) -> APIRouter:
    """Whoever asks for another's stream is told the same as for one that never was."""
    router = APIRouter(prefix="/v1", tags=["chat"])

    @router.get(
        "/streams/{stream_id}",
        summary="Go on with a stream that can be resumed",
        response_class=Response,
        responses={
            **described({"400": "`after` or `Last-Event-ID` is no number of an event."}),
            200: answers("text/event-stream", about="The events after that one."),
            410: answers("application/json", about=GONE, fields={**ERROR["properties"], "stream": {"type": "object"}}),
        },
    )
    async def get_stream(
        stream_id: str,
        request: Request,
        after: str | None = None,
        last_event_id: str | None = Header(default=None),
    ) -> Response:
        caller = door.caller(dict(request.scope["headers"]), peer_of(request.scope))
        # The header is newer: a browser sends it when it comes back, to the address it was first given.
        number = number_of("after", after)
        number = number_of("Last-Event-ID", last_event_id, number)
        try:
            events = await streams.find(caller, stream_id, number)
        except StreamExpired as error:
            return _gone(request, stream_id, error)
        return Resumed(stream_id, events, times)

    return router


def number_of(name: str, value: str | None, default: int = 0) -> int:
    """Raises `InvalidValue` for what is no number of an event."""
    if value is None or not value.strip():
        return default
    if not (value.strip().isdecimal() and value.isascii() and len(value.strip()) <= DIGITS_MAX):
        raise InvalidValue(f"{name} must be the number of the last event that was received.", param=name)
    return int(value.strip())


def _gone(request: Request, stream_id: str, error: StreamExpired) -> Response:
    body = orjson.dumps({**orjson.loads(write_error(error)), "stream": _summary(stream_id, error.about)})
    request_id = Inbound.of(request.scope, request.receive, request._send).request_id
    headers = {name.decode(): value.decode() for name, value in error_headers(error, request_id, body)}
    return Response(body, error.status, {**headers, STREAM_ID.decode(): stream_id})


def _summary(stream_id: str, about: Any) -> dict[str, Any]:
    """What is not known is null."""
    tokens = {name: _int(about.get(name)) for name in TOKENS}
    cost = _int(about.get("cost_nano"))
    return {
        "id": stream_id,
        "model": about.get("model"),
        "status": about.get("status"),
        "error_code": about.get("code"),
        "usage": tokens if any(value is not None for value in tokens.values()) else None,
        "cost_usd": None if cost is None else usd(cost),
    }


def _int(value: str | None) -> int | None:
    return None if value is None else int(value)
