"""The contract of everything that can answer: adapters of real servers, the built-in embedder, and later modes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from app.core.card import Card
from app.core.events import Event
from app.core.request import EmbeddingRequest, Embeddings, Request


class Upstream(Protocol):
    """Errors are raised as `GatewayError`s, before the first event or between events; cancelling or closing the
    generator closes the connection to the upstream. One call is one attempt: nothing is retried inside."""

    name: str
    kind: str
    local: bool

    def stream(self, request: Request, card: Card) -> AsyncGenerator[Event, None]:
        """The answer as events: Start first, then content, a Finish per choice, Usage last."""
        ...

    async def embed(self, request: EmbeddingRequest, card: Card) -> Embeddings:
        """One vector per input."""
        ...

    async def cards(self) -> Sequence[Card]:
        """The models it offers now. Raises an `UpstreamFault` when it does not answer."""
        ...

    async def close(self) -> None:
        """Frees its connections."""
        ...
