"""`POST /v1/embeddings`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from app.api.auth import Door
from app.api.headers import whole_headers
from app.api.inbound import Inbound
from app.api.terms import read_terms
from app.core.tasks import Watched
from app.gateway.flag_service import Meet
from app.gateway.gateway import Gateway
from app.wire import embeddings
from app.wire.codec import Limits
from app.wire.objects import tierway


@dataclass(frozen=True, slots=True)
class EmbeddingsEndpoint:
    door: Door
    gateway: Gateway
    limits: Limits
    meet: Meet | None = None

    async def __call__(self, inbound: Inbound) -> None:
        caller = self.door.caller(inbound.headers, inbound.peer)
        terms = read_terms(inbound, caller)
        if self.meet is not None:
            await self.meet(caller, terms.agent)
        request = embeddings.read_request(await inbound.body(self.limits.body_bytes), terms)
        inbound.taken = True
        with contextlib.suppress(Watched):  # the client left: the call is cancelled, and there is nobody to tell
            async with inbound.while_here():
                reply, served, usage = await self.gateway.embed(caller, request)
            body = embeddings.write_reply(reply, request, tierway(served, usage))
            ignored = (*terms.ignored, *reply.ignored)
            headers = whole_headers(body, inbound, served, ignored, usage)
            await inbound.begin(200, headers)
            await inbound.write(body)
