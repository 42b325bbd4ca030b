"""Gives an answer to a client, as events or whole, and stops working for one that left.

Beside the answer runs a companion that waits for the client to leave. On streams it also keeps the line alive: when no
content has come for a while, headers go out and comments keep proxies awake; a client that takes nothing is dropped.
There is no queue: `send` blocking is the back-pressure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.api.errors import shown
from app.api.headers import reply_headers, whole_headers
from app.api.inbound import Headers, Inbound
from app.core.caller import Caller
from app.core.errors import ClientGone
from app.core.events import Fault, Fold, Start, Text
from app.core.request import Request
from app.core.tasks import Watched, cancel_if
from app.gateway.gateway import Gateway
from app.wire.codec import ClientCodec

STREAM_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
PING: Final = b": ping\n\n"


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: until headers go out without content, between keep-alives, for one write to be taken."""

    commit_after: float = 15.0
    ping: float = 15.0
    send_timeout: float = 30.0


async def reply(
    inbound: Inbound, caller: Caller, request: Request, gateway: Gateway, codec: ClientCodec, pace: Pace
) -> None:
    """Answers in the way the request asks for. Raises a `GatewayError` while a status can still be sent."""
    with contextlib.suppress(Watched):  # the client left: the answer is closed, and there is nobody to tell
        if request.stream:
            await _stream(inbound, caller, request, gateway, codec, pace)
        else:
            await _whole(inbound, caller, request, gateway, codec)


async def _whole(inbound: Inbound, caller: Caller, request: Request, gateway: Gateway, codec: ClientCodec) -> None:
    fold = Fold()
    async with cancel_if(inbound.gone(), "client"), contextlib.aclosing(gateway.answer(caller, request)) as events:
        async for event in events:
            fold.add(event)
    if fold.fault is not None:
        raise fold.fault
    answer = fold.answer()
    body = codec.write_reply(answer, request)
    ignored = _ignored(answer.start, request)
    await inbound.begin(200, whole_headers(body, inbound, answer.start.served, ignored, answer.usage))
    await inbound.write(body)


async def _stream(
    inbound: Inbound, caller: Caller, request: Request, gateway: Gateway, codec: ClientCodec, pace: Pace
) -> None:
    line, writer = Line(inbound, pace), codec.writer(request)
    try:
        async with (
            cancel_if(keep(inbound, line), "client"),
            contextlib.aclosing(gateway.answer(caller, request)) as events,
        ):
            async for event in events:
                if type(event) is Start:
                    await line.open(reply_headers(inbound, event.served, _ignored(event, request)))
                data = writer.write(event)
                if type(event) is Text and event.more:
                    line.hold(data)
                elif data:
                    await line.write(data)
            await line.end(writer.end())
    except ClientGone:
        inbound.abort()
        await asyncio.sleep(0)  # in which the server learns of it, or it would log an answer without an end
    except Watched:
        raise
    except (Exception, asyncio.CancelledError) as error:  # after the head, the stream itself must say how it ended
        if inbound.answered:
            await line.last(writer.write(Fault(shown(error, inbound.request_id))))
        raise


class Line:
    """The way to a client that reads a stream."""

    ping = PING

    def __init__(self, inbound: Inbound, pace: Pace) -> None:
        self._inbound = inbound
        self._pace = pace
        self._time = asyncio.get_running_loop().time
        self._last = inbound.started
        self._writing = False
        self._held: list[bytes] = []

    async def open(self, headers: Headers) -> None:
        if not self._inbound.answered:
            await self._inbound.begin(200, [*STREAM_HEADERS, *headers])

    def hold(self, data: bytes) -> None:
        """To leave with the next write, which follows at once."""
        self._held.append(data)

    async def write(self, data: bytes, *, more: bool = True) -> None:
        if self._held:
            data = b"".join((*self._held, data))
            self._held.clear()
        self._writing, self._last = True, self._time()
        await self._inbound.write(data, more=more)
        self._writing = False

    async def end(self, data: bytes) -> None:
        await self.write(data, more=False)

    async def last(self, data: bytes) -> None:
        """`end` for when nobody watches the client any more: without waiting for one that takes nothing."""
        try:
            async with asyncio.timeout(self._pace.send_timeout):
                await self.end(data)
        except TimeoutError:
            self._inbound.abort()

    def wake(self) -> float:
        """When to call `tick` next, in loop seconds: a write that begins meanwhile must not be looked at too late."""
        return min(self._due(), self._time() + self._pace.send_timeout)

    def _due(self) -> float:
        pace = self._pace
        if self._writing:
            return self._last + pace.send_timeout
        return self._last + (pace.ping if self._inbound.answered else pace.commit_after)

    async def tick(self) -> None:
        """Does what is due. Raises `ClientGone` for a client that takes nothing."""
        if self._time() < self._due():
            return
        if self._writing:
            raise ClientGone("The client takes nothing of its answer.")
        try:
            async with asyncio.timeout(self._pace.send_timeout):
                await self.open([(b"x-request-id", self._inbound.request_id.encode())])
                await self.write(self.ping)
        except TimeoutError:
            raise ClientGone("The client does not even take a comment.") from None


async def keep(inbound: Inbound, line: Line) -> None:
    """Returns when the client has left; meanwhile keeps the line alive."""
    while True:
        try:
            async with asyncio.timeout_at(line.wake()):
                await inbound.gone()
                return
        except TimeoutError:
            await line.tick()


def _ignored(start: Start, request: Request) -> Sequence[str]:
    return (*request.terms.ignored, *start.ignored)
