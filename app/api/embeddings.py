"""`POST /v1/embeddings`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from app.api.auth import Door
from app.api.inbound import Inbound
from app.api.reply import header_value
from app.api.terms import read_terms
from app.core.tasks import Watched, cancel_if
from app.gateway.gateway import Gateway
from app.wire import embeddings
from app.wire.codec import Limits


@dataclass(frozen=True, slots=True)
class EmbeddingsEndpoint:
    door: Door
    gateway: Gateway
    limits: Limits

    async def __call__(self, inbound: Inbound) -> None:
        caller = self.door.caller(inbound.headers)
        terms = read_terms(inbound, caller)
        request = embeddings.read_request(await inbound.body(self.limits.body_bytes), terms)
        with contextlib.suppress(Watched):  # the client left: the call is cancelled, and there is nobody to tell
            async with cancel_if(inbound.gone(), "client"):
                reply, card = await self.gateway.embed(caller, request)
            body = embeddings.write_reply(reply, request)
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"x-request-id", inbound.request_id.encode()),
                (b"x-tierway-model", header_value(card.id)),
                (b"x-tierway-upstream", header_value(card.upstream)),
            ]
            if ignored := (*terms.ignored, *reply.ignored):
                headers.append((b"x-tierway-ignored", header_value(", ".join(ignored))))
            await inbound.begin(200, headers)
            await inbound.write(body)
