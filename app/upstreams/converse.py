"""One attempt over HTTP: write the request, read the reply, whatever the dialect.

The upstream is asked the way the client asked, but its content type decides how its answer is read: a server that
cannot stream still answers a streamed request. `converse` is for answers that are events, `fetch` for everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from app.core.card import Card
from app.core.errors import BadReply, GatewayError, OutOfTime, TimedOut
from app.core.events import CONTENT, TOGETHER_MOST, Event, Start, Text, is_content
from app.core.request import Request, Terms
from app.upstreams.http import ERROR_BYTES_MAX, REPLY_BYTES_MAX, Call, Clocks, Reply, Transport
from app.wire.codec import UpstreamCodec

STREAM_TYPES: Final = frozenset({"text/event-stream", "application/x-ndjson"})
JSON_TYPES: Final = frozenset({"application/json"})
BASE_HEADERS: Final[Mapping[str, str]] = {
    "content-type": "application/json",
    "accept-encoding": "identity",  # a compressed stream would be held back until a block is full
}
ENDING_SECONDS: Final = 1.0
OUT_OF_TIME: Final = "The request's time is over."


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
    call = Call("POST", url, {**BASE_HEADERS, **headers, **outgoing.headers}, outgoing.body, request.stream)
    given = _given(request.terms, clocks, whole=not request.stream)
    sending, ignored = transport.send(call, given), outgoing.ignored
    del call  # with its body, which need not stay as long as the answer takes
    try:
        async with sending as reply:
            if reply.status != 200:
                raise codec.read_error(reply.status, reply.headers, await _excerpt(reply))
            if not streamed(reply.content_type, request.stream):
                for event in codec.read_reply(await reply.read(), request, card, outgoing):
                    yield _noted(event, ignored)
                return
            reader = codec.reader(request, card, outgoing)
            del outgoing
            committed, room = False, math.inf if request.stream else REPLY_BYTES_MAX
            while data := await reply.more():
                room -= len(data)
                if room < 0:  # it will be held whole, and must fit
                    raise BadReply(f"The upstream's reply is larger than {REPLY_BYTES_MAX} bytes.")
                events = reader.feed(data)
                for event in events if len(events) == 1 else _together(events):
                    if not committed:
                        committed = is_content(event)
                        reply.alarm.content(committed)
                        event = _noted(event, ignored)
                    yield event
                if reader.over:
                    await _ended(reply)
                    break
            for event in reader.end():
                yield event
    except TimedOut as error:
        raise _whose(error, given, clocks)  # noqa: B904 - the same error, or one that names it as its cause


async def _ended(reply: Reply) -> None:
    """Lets a body end whose answer has said its last word, so that the connection can be used again. What does not end
    soon, or breaks off, takes nothing from the answer."""
    with contextlib.suppress(GatewayError, TimeoutError):
        async with asyncio.timeout(ENDING_SECONDS):
            while await reply.more():
                pass


def _together(events: list[Event]) -> list[Event]:
    """The same; each piece of text knows whether another piece follows it at once. Several that are one event already
    wait for no more of them."""
    for index, (event, following) in enumerate(itertools.pairwise(events), 1):
        if type(event) is Text:
            event.more = event.pieces == 1 and isinstance(following, CONTENT) and index % TOGETHER_MOST != 0
    return events


async def fetch(
    transport: Transport, call: Call, clocks: Clocks, terms: Terms | None = None, limit: int = REPLY_BYTES_MAX
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of one exchange; the body of a refusal may be cut. `terms` of the request that this is
    done for, if any."""
    given = _given(terms, clocks, whole=True)
    try:
        async with transport.send(call, given) as reply:
            whole = reply.status == 200
            return reply.status, reply.headers, await (reply.read(limit) if whole else _excerpt(reply))
    except TimedOut as error:
        raise _whose(error, given, clocks)  # noqa: B904 - the same error, or one that names it as its cause


def _given(terms: Terms | None, clocks: Clocks, *, whole: bool) -> Clocks:
    """The clocks of this attempt: nothing outlasts the request's deadline, and what comes whole has no first token
    before its last."""
    total, deadline = clocks.total, math.inf
    if terms is not None and terms.deadline is not None:
        deadline = terms.deadline
        total = min(total, deadline - time.monotonic())
        if total <= 0:
            error = OutOfTime(OUT_OF_TIME, phase="total")
            error.billed = False  # nothing was sent
            raise error
    return Clocks(clocks.connect, total if whole else clocks.first_token, clocks.idle, total, deadline)


def _whose(error: TimedOut, given: Clocks, clocks: Clocks) -> TimedOut:
    """Running into the deadline is `OutOfTime`: the caller's limit, not the upstream's."""
    if error.phase != "total" or given.total >= clocks.total:
        return error
    late = OutOfTime(OUT_OF_TIME, phase="total")
    late.billed = error.billed
    late.__cause__ = error
    return late


async def _excerpt(reply: Reply) -> bytes:
    """The beginning of a refusal: some servers repeat the whole request in it, which must not hide the status."""
    parts: list[bytes] = []
    while sum(map(len, parts)) < ERROR_BYTES_MAX and (data := await reply.more()):
        parts.append(data)
    return b"".join(parts)[:ERROR_BYTES_MAX]


def _noted(event: Event, ignored: tuple[str, ...]) -> Event:
    """Readers of replies do not know what of the request was left out."""
    if type(event) is Start:
        event.ignored = ignored
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
