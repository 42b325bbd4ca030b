"""Streams that can be resumed, towards clients: made in a task of its own, so that a client that leaves ends nothing,
and sent to whoever reads them, now or later.

On such a line pings have no blank line, because events with an id end there for some clients. What befalls a line and
not its stream (the gateway stops, or another one broke) is told by an error without an id: a client that goes on
elsewhere then misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final

from starlette.responses import Response

from app.api.errors import shown
from app.api.headers import reply_headers
from app.api.inbound import Headers, Inbound, Receive, Scope, Send
from app.api.line import Line, LineTimes, ended, keep
from app.api.terms import RESUMABLE
from app.core.caller import Caller
from app.core.errors import GatewayError, StreamOrphaned
from app.core.events import Fault, Start
from app.core.request import Request
from app.core.tasks import TaskOwner, Watched, cancel_if
from app.gateway.live import Live
from app.gateway.resumable import Status, Streams
from app.gateway.stages import Answers
from app.wire.codec import ClientCodec
from app.wire.objects import write_error

STREAM_ID: Final = b"x-tierway-stream-id"
Head = Callable[[], Awaitable[Headers]]


class StreamLine(Line):
    """A line whose head says how to come back."""

    ping = b": ping\n"

    def __init__(self, inbound: Inbound, times: LineTimes, stream_id: str) -> None:
        super().__init__(inbound, times)
        self._stream_id = stream_id.encode()

    async def open(self, headers: Headers) -> None:
        await super().open([*headers, (STREAM_ID, self._stream_id)])


class Resumable:
    """Answers chat requests with streams that can be resumed, in one dialect. `under_way` is around the making of each,
    and knows of it when the gateway is to stop."""

    def __init__(
        self,
        streams: Streams,
        gateway: Answers,
        codec: ClientCodec,
        times: LineTimes,
        tasks: TaskOwner,
        under_way: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._streams = streams
        self._gateway = gateway
        self._codec = codec
        self.times = times
        self._tasks = tasks
        self._under_way = under_way

    async def answer_if_asked(self, inbound: Inbound, caller: Caller, request: Request) -> bool:
        """Whether it was such a request; then it is answered. Raises a `GatewayError` while a status can be sent."""
        live = await self._streams.open(caller, request)
        if live is None:
            return False
        request = _heeded(request, live.id)

        async def head() -> Headers:
            start = await live.begun()
            return reply_headers(inbound, start.served, (*request.terms.ignored, *start.ignored))

        with live.attended():
            self._tasks.spawn(self._made(live, caller, request), live.id)
            try:
                await pass_on(inbound, StreamLine(inbound, self.times, live.id), head, self._streams.read(live))
            finally:
                if not inbound.answered:
                    live.abandon()
        return True

    async def aclose(self) -> None:
        """Ends what is still being made with an error; how long it is waited for before is the server's affair."""
        await self._tasks.drain(0)

    async def _made(self, live: Live, caller: Caller, request: Request) -> None:
        with self._under_way():
            await self._make(live, caller, request)

    async def _make(self, live: Live, caller: Caller, request: Request) -> None:
        writer, status = self._codec.writer(request), Status.FINISHED
        try:
            async with (
                cancel_if(live.tend(), "readers"),
                contextlib.aclosing(self._gateway.answer(caller, request)) as events,
            ):
                async for event in events:
                    if type(event) is Start:
                        live.begin(event)
                    elif type(event) is Fault:
                        status = Status.FAILED
                    if data := writer.write(event):
                        await live.add(data)
                await live.add(writer.end())
        except (Exception, asyncio.CancelledError) as error:  # whatever it was, its readers are told
            status = Status.ORPHANED if isinstance(error, Watched) else Status.FAILED
            seen = _seen(error, request)
            live.fail(seen)
            live.tail.add(writer.write(Fault(seen)))
            if not isinstance(error, (GatewayError, Watched, asyncio.CancelledError)):
                raise
        finally:
            await self._streams.close(live, status)


class Resumed(Response):
    """What is left of a stream, for a client that came back."""

    def __init__(self, stream_id: str, events: AsyncGenerator[bytes, None], times: LineTimes) -> None:
        super().__init__()
        self._stream_id = stream_id
        self._events = events
        self._times = times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inbound = Inbound.of(scope, receive, send)

        async def head() -> Headers:
            return [(b"x-request-id", inbound.request_id.encode())]

        with contextlib.suppress(GatewayError, asyncio.CancelledError):  # the client was told in its stream
            await pass_on(inbound, StreamLine(inbound, self._times, self._stream_id), head, self._events)


async def pass_on(inbound: Inbound, line: Line, head: Head, events: AsyncGenerator[bytes, None]) -> None:
    """Sends events as they come, to their end or until the client has left."""
    async with (
        ended(inbound, line, lambda error: b"data: " + write_error(error) + b"\n\n"),
        contextlib.aclosing(events),
        cancel_if(keep(inbound, line), "client"),
    ):
        await line.open(await head())
        async for data in events:
            await line.write(data)
        await line.end(b"")


def _heeded(request: Request, stream_id: str) -> Request:
    """It is known which stream it makes. The header has an effect: it is not among those that have none."""
    name = RESUMABLE.decode()
    ignored = tuple(each for each in request.terms.ignored if each != name)
    return replace(request, terms=replace(request.terms, ignored=ignored, stream_id=stream_id))


def _seen(error: BaseException, request: Request) -> GatewayError:
    if isinstance(error, Watched):
        return StreamOrphaned("Nobody read this stream any more, so it was ended.")
    return shown(error, request.id)
