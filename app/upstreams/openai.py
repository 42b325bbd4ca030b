"""Any server that speaks OpenAI's wire: where to send, and what models there are.

The wire is `app.wire.chat` and `app.wire.embeddings`. `OpenAIServer` is one server and our key there, `OpenAIUpstream`
the upstream made of it. What its list of models means is told by `app.upstreams.openai_models`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from app.core.card import Card
from app.core.errors import BadReply, UpstreamFault
from app.core.events import Event
from app.core.request import EmbeddingRequest, Embeddings, Request, Terms
from app.upstreams.converse import BASE_HEADERS, converse, fetch
from app.upstreams.http import Call, Clocks, Transport
from app.upstreams.openai_models import abilities_of, card_of
from app.wire import chat, embeddings
from app.wire.errors import error_of
from app.wire.objects import Listed, read_models

LIST_SECONDS: Final = 3.0  # for a list of models, and for anything else that is asked about a server


class OpenAIServer:
    """One server. `base_url` is without the trailing /v1; `clocks` are those of requests."""

    def __init__(self, base_url: str, *, api_key: str | None, clocks: Clocks, transport: Transport) -> None:
        self._root = base_url.rstrip("/")
        self._chat_url = f"{self._root}/v1/chat/completions"
        self._clocks = clocks
        self._transport = transport
        key = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._headers: Mapping[str, str] = {**BASE_HEADERS, **key}

    def chat(self, request: Request, card: Card, request_id: str) -> AsyncGenerator[Event, None]:
        return converse(
            self._transport,
            chat,
            request,
            card,
            url=self._chat_url,
            headers=self._headers_for(request.terms, request_id),
            clocks=self._clocks,
        )

    async def embed(self, request: EmbeddingRequest, card: Card, request_id: str) -> Embeddings:
        outgoing = embeddings.write_request(request, card)
        headers = self._headers_for(request.terms, request_id)
        call = Call("POST", f"{self._root}/v1/embeddings", headers, outgoing.body)
        status, reply_headers, body = await fetch(self._transport, call, self._clocks, request.terms)
        if status != 200:
            raise chat.read_error(status, reply_headers, body)
        return embeddings.read_reply(body, request, card, outgoing.ignored)

    async def models(self) -> tuple[Listed, ...]:
        status, headers, body = await self._about("/v1/models")
        if status != 200:
            error = error_of(status, "", headers)
            raise error if isinstance(error, UpstreamFault) else BadReply(f"Listing the models was answered {status}.")
        return read_models(body)

    async def about(self, path: str) -> tuple[int, bytes]:
        """Status and body of what the server says of itself."""
        status, _, body = await self._about(path)
        return status, body

    async def _about(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        clocks = self._clocks._replace(total=min(LIST_SECONDS, self._clocks.total))
        call = Call("GET", self._root + path, self._headers)
        return await fetch(self._transport, call, clocks)

    def _headers_for(self, terms: Terms, request_id: str) -> dict[str, str]:
        return {**self._headers, "x-request-id": request_id, **terms.trace_headers}


class OpenAIUpstream:
    """Satisfies `Upstream`."""

    kind = "openai"

    def __init__(
        self, name: str, *, base_url: str, api_key: str | None, local: bool, clocks: Clocks, transport: Transport
    ) -> None:
        self.name = name
        self.local = local
        self._transport = transport
        self._server = OpenAIServer(base_url, api_key=api_key, clocks=clocks, transport=transport)

    def stream(self, request: Request, card: Card) -> AsyncGenerator[Event, None]:
        return self._server.chat(request, card, request.id)

    async def embed(self, request: EmbeddingRequest, card: Card) -> Embeddings:
        return await self._server.embed(request, card, request.id)

    async def cards(self) -> Sequence[Card]:
        return tuple(card_of(model, self, abilities_of(model)) for model in await self._server.models())

    async def close(self) -> None:
        await self._transport.close()
