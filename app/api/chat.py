"""`POST /v1/chat/completions`: reads the request, lets the gateway answer it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.api.auth import Door
from app.api.inbound import Inbound
from app.api.line import LineTimes
from app.api.reply import reply
from app.api.resumable import Resumable
from app.api.terms import read_terms
from app.gateway.flag_service import Meet
from app.gateway.stages import Answers
from app.wire.codec import ClientCodec, Limits


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """One dialect of chat; `codec` says which. `streams_active` counts the open streams up and down; `resumable` gets
    every request for a stream first; `meet` is told who comes, before a flag is asked."""

    door: Door
    gateway: Answers
    codec: ClientCodec
    limits: Limits
    times: LineTimes
    streams_active: Callable[[int], None]
    resumable: Resumable | None = None
    meet: Meet | None = None

    async def __call__(self, inbound: Inbound) -> None:
        caller = self.door.caller(inbound.headers, inbound.peer)
        terms = read_terms(inbound, caller)
        if self.meet is not None:
            await self.meet(caller, terms.agent)
        request = self.codec.read_request(await inbound.body(self.limits.body_bytes), terms, self.limits)
        inbound.taken = True
        if not request.stream:
            await reply(inbound, caller, request, self.gateway, self.codec, self.times)
            return
        self.streams_active(1)
        try:
            if self.resumable is None or not await self.resumable.answer_if_asked(inbound, caller, request):
                await reply(inbound, caller, request, self.gateway, self.codec, self.times)
        finally:
            self.streams_active(-1)
