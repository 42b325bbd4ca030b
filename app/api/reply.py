"""Gives an answer to a client, as events or whole, and stops working for one that left.

Of a client that leaves a whole answer hears from the connection; beside a stream runs a companion that waits for that,
and keeps the line alive. There is no queue: `send` blocking is the back-pressure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from app.api.headers import reply_headers, whole_headers
from app.api.inbound import Inbound
from app.api.line import Line, LineTimes, ended, keep
from app.core.caller import Caller
from app.core.events import Fault, Fold, Start, Text
from app.core.request import Request
from app.core.tasks import Watched, cancel_if
from app.gateway.stages import Answers
from app.wire.codec import ClientCodec


async def reply(
    inbound: Inbound, caller: Caller, request: Request, gateway: Answers, codec: ClientCodec, times: LineTimes
) -> None:
    """Answers in the way the request asks for. Raises a `GatewayError` while a status can still be sent."""
    with contextlib.suppress(Watched):  # the client left: the answer is closed, and there is nobody to tell
        if request.stream:
            await _stream(inbound, caller, request, gateway, codec, times)
        else:
            await _whole(inbound, caller, request, gateway, codec)


async def _whole(inbound: Inbound, caller: Caller, request: Request, gateway: Answers, codec: ClientCodec) -> None:
    fold = Fold()
    async with inbound.while_here(), contextlib.aclosing(gateway.answer(caller, request)) as events:
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
    inbound: Inbound, caller: Caller, request: Request, gateway: Answers, codec: ClientCodec, times: LineTimes
) -> None:
    line, writer = Line(inbound, times), codec.writer(request)
    async with (
        ended(inbound, line, lambda error: writer.write(Fault(error))),
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


def _ignored(start: Start, request: Request) -> Sequence[str]:
    return (*request.terms.ignored, *start.ignored)
