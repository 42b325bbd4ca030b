"""One attempt over HTTP: write the request, read the reply, whatever the dialect.

The upstream is asked the way the client asked, but its content type decides how its answer is read: a server that
cannot stream still answers a streamed request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Final

from app.core.card import Card
from app.core.errors import BadReply
from app.core.events import Event, Start, is_content
from app.core.request import Request
from app.upstreams.http import ERROR_BYTES_MAX, Call, Clocks, Transport
from app.wire.codec import Outgoing, UpstreamCodec

STREAM_TYPES: Final = frozenset({"text/event-stream", "application/x-ndjson"})
JSON_TYPES: Final = frozenset({"application/json"})


async def converse(
    transport: Transport,
    codec: UpstreamCodec,
    request: Request,
    card: Card,
    *,
    url: str,
    headers: Mapping[str, str],
    clocks: Clocks,
) -> AsyncGenerator[Event, None]:
    """The events of one answer. Raises what the codec and the transport raise."""
    outgoing = codec.write_request(request, card)
    clocks = _until(request, clocks)
    call = Call("POST", url, {**BASE_HEADERS, **headers, **outgoing.headers}, outgoing.body)
    async with transport.send(call, clocks) as reply:
        if reply.status != 200:
            raise codec.read_error(reply.status, reply.headers, await reply.read(ERROR_BYTES_MAX))
        if not streamed(reply.content_type, request.stream):
            for event in codec.read_reply(await reply.read(), request, card, outgoing):
                yield _noted(event, outgoing)
            return
        reader = codec.reader(request, card, outgoing)
        committed = False
        while data := await reply.more():
            for event in reader.feed(data):
                if not committed:
                    committed = is_content(event)
                    reply.alarm.content(committed)
                    event = _noted(event, outgoing)
                yield event
        for event in reader.end():
            yield event


BASE_HEADERS: Final[Mapping[str, str]] = {
    "content-type": "application/json",
    "accept-encoding": "identity",  # a compressed stream would be held back until a block is full
}


def _until(request: Request, clocks: Clocks) -> Clocks:
    """The clocks of this attempt: nothing outlasts the request's deadline, and a whole answer has no first token
    before its last."""
    deadline = request.terms.deadline
    left = clocks.total if deadline is None else deadline - asyncio.get_running_loop().time()
    total = max(0.0, min(clocks.total, left))
    return replace(clocks, total=total, first_token=clocks.first_token if request.stream else total)


def _noted(event: Event, outgoing: Outgoing) -> Event:
    if type(event) is Start:
        event.ignored = outgoing.ignored
    return event


def streamed(content_type: str, asked: bool) -> bool:
    """Whether a reply of this content type is a stream. A server that does not say is believed to do as asked."""
    if content_type in STREAM_TYPES:
        return True
    if content_type in JSON_TYPES:
        return False
    if not content_type:
        return asked
    raise BadReply(f"The upstream answered with {content_type[:80]!r} instead of JSON or an event stream.")
