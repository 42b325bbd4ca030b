"""vLLM: several servers as one pool, which of them are fit to be asked, and what models they serve.

The wire is OpenAI's (`app.upstreams.openai`). A dead engine says so at /health; a sleeping one answers there and in its
lists as if nothing were, and lets requests wait for ever, so that it has to be noticed from its metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeVar

from app.core.card import Ability, Card
from app.core.errors import Broken, Refused, TimedOut, UpstreamFault
from app.core.events import Event
from app.core.request import EmbeddingRequest, Embeddings, Request
from app.upstreams.http import Clocks, Transport
from app.upstreams.openai import OpenAIServer
from app.upstreams.openai_models import EMBEDS, card_of, embeds_by_name
from app.upstreams.pool import Pool
from app.upstreams.vllm_state import read_metrics, says_sleeping
from app.wire.objects import Listed

T = TypeVar("T")
SILENT: Final = (Refused, Broken, TimedOut)

WATCH_SECONDS: Final = 5.0

CHATS: Final = frozenset(
    {
        Ability.CHAT,
        Ability.TOOLS,
        Ability.FORCED_TOOLS,
        Ability.IMAGES,
        Ability.IMAGE_URLS,
        Ability.JSON_OBJECT,
        Ability.JSON_SCHEMA,
        Ability.LOGPROBS,
        Ability.MANY,
        Ability.STOP,
        Ability.REASONING,
    }
)
"""What vLLM serves of chat. It does not say which of it a model can, so that is the configuration's to correct."""
QUIRKS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "reasoning_field": "reasoning",
        # A request id that comes twice breaks the first request; transfers between caches are not a caller's business.
        "drop": frozenset({"request_id", "kv_transfer_params"}),
    }
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What one replica lists. `embeds`: whether it is a server for embeddings, as a vLLM server is for one or the
    other; None where it does not say."""

    models: Mapping[str, Listed]
    embeds: bool | None


class VllmUpstream:
    """Satisfies `Upstream`. Somebody must run `watch()` beside the requests."""

    kind = "vllm"

    def __init__(
        self,
        name: str,
        *,
        base_urls: Sequence[str],
        api_key: str | None,
        local: bool,
        clocks: Clocks,
        transport: Transport,
    ) -> None:
        self.name = name
        self.local = local
        self.pool = Pool(base_urls)
        self._transport = transport
        self._servers = {
            url: OpenAIServer(url, api_key=api_key, clocks=clocks, transport=transport) for url in base_urls
        }
        self._offers: dict[str, Offer] = {}

    def stream(self, request: Request, card: Card) -> AsyncGenerator[Event, None]:
        conversation = request.terms.session
        return self._anywhere(card, lambda server: server.chat(request, card, unique(request.id)), conversation)

    async def embed(self, request: EmbeddingRequest, card: Card) -> Embeddings:
        async def one(server: OpenAIServer) -> AsyncGenerator[Embeddings, None]:
            yield await server.embed(request, card, unique(request.id))

        async with contextlib.aclosing(self._anywhere(card, one)) as results:
            return await anext(results)

    async def _anywhere(
        self, card: Card, ask: Callable[[OpenAIServer], AsyncGenerator[T, None]], conversation: str | None = None
    ) -> AsyncGenerator[T, None]:
        """What the best replica gives, which is that of the `conversation` where there is one. Where no connection can
        be made nothing was asked yet, so the next replica is tried, as for the addresses of one name; a request that
        was sent is never sent again."""
        skip = {url for url, offer in self._offers.items() if card.name not in offer.models}
        while True:
            with self.pool.lease(skip, conversation) as url:
                try:
                    async with contextlib.aclosing(ask(self._servers[url])) as items:
                        async for item in items:
                            yield item
                    return
                except Refused:
                    self.pool.mark(url, away=True)
                    skip.add(url)
                    if not self.pool.others(skip):
                        raise

    async def cards(self) -> Sequence[Card]:
        """The models of all replicas together, as each last listed them; the smallest window counts where they differ.
        Raises only when no replica answers."""
        answers = await asyncio.gather(*(self._list(url) for url in self._servers))
        faults = [answer for answer in answers if answer is not None]
        if len(faults) == len(answers):  # one that answered, if only to refuse us, says more than one that did not
            raise min(faults, key=lambda fault: isinstance(fault, SILENT))
        cards: dict[str, Card] = {}
        for offer in [self._offers[url] for url in self._servers if url in self._offers]:
            for card in (self._card(model, offer) for model in offer.models.values()):
                cards[card.name] = min(cards.get(card.name, card), card, key=_window)
        return tuple(cards.values())

    async def close(self) -> None:
        await self._transport.close()

    async def watch(self, every: float = WATCH_SECONDS) -> None:
        """Looks after the replicas for ever; to be cancelled."""
        while True:
            await self.probe()
            await asyncio.sleep(every)

    async def probe(self) -> None:
        """Marks which replicas are away and how much waits at the others. Raises nothing."""
        await asyncio.gather(*(self._probe(url) for url in self._servers))

    async def _probe(self, url: str) -> None:
        server = self._servers[url]
        try:
            status, _ = await server.about("/health")
            if status >= 500:
                self.pool.mark(url, away=True)
                return
            status, metrics = await server.about("/metrics")
            waiting, asleep = read_metrics(metrics) if status == 200 else (None, None)
            if asleep is None:  # older releases have no such metric, and metrics may be served elsewhere
                asleep = says_sleeping(*await server.about("/is_sleeping"))
        except UpstreamFault:
            self.pool.mark(url, away=True)
        else:
            self.pool.mark(url, away=asleep, queue_depth=waiting)

    async def _list(self, url: str) -> UpstreamFault | None:
        """Remembers what a replica offers; the fault, if it does not say."""
        server = self._servers[url]
        try:
            models = await server.models()
            self._offers[url] = Offer({model.id: model for model in models}, await _embeds(server))
        except UpstreamFault as fault:
            if isinstance(fault, SILENT):
                self.pool.mark(url, away=True)
            return fault
        return None

    def _card(self, model: Listed, offer: Offer) -> Card:
        """An adapter (LoRA) has the window and the size of the model that it adapts."""
        base = offer.models.get(model.parent or "", model)
        embeds = embeds_by_name(model) if offer.embeds is None else offer.embeds
        card = card_of(model, self, EMBEDS if embeds else CHATS, akin=[base])
        return replace(card, context_window=card.context_window or base.context_window, quirks=QUIRKS)


def unique(request_id: str) -> str:
    """vLLM names its own request after this, and two of one name at a time break; a try again must not collide."""
    return f"{request_id}-{random.getrandbits(32):08x}"


async def _embeds(server: OpenAIServer) -> bool | None:
    """Told by the endpoints: vLLM has only those of what its model does, and answers a GET of them with 405. Old
    releases have them all."""
    chats, _ = await server.about("/v1/chat/completions")
    embeds, _ = await server.about("/v1/embeddings")
    if embeds != 405:
        return False
    return True if chats == 404 else None


def _window(card: Card) -> float:
    return card.context_window or math.inf
