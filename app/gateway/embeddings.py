"""What only embeddings need on the way that all requests take: a reply is one item of a stream, and its usage is told
with it or estimated from what was sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

from app.core.card import Card
from app.core.errors import GatewayError
from app.core.events import Usage
from app.core.money import Tokens
from app.core.record import Served
from app.core.request import EmbeddingRequest, Embeddings
from app.core.tokens import bytes_of, estimate
from app.core.upstream import Upstream


class Embedded(NamedTuple):
    reply: Embeddings
    served: Served
    usage: Usage


async def replies(upstream: Upstream, request: EmbeddingRequest, card: Card) -> AsyncGenerator[Embeddings, None]:
    """The reply, as a stream of one."""
    yield await upstream.embed(request, card)


def commits(reply: Embeddings) -> bool:
    """Every reply is whole."""
    return True


def after(error: GatewayError) -> Embeddings:
    raise AssertionError("an embedding is one item, which nothing can come after") from error


def usage_of(reply: Embeddings, request: EmbeddingRequest) -> Usage:
    """What the upstream said it read, else an estimate."""
    if reply.prompt_tokens is not None:
        return Usage(Tokens(prompt=reply.prompt_tokens))
    return Usage(Tokens(prompt=sum(map(_tokens, request.inputs))), estimated=True)


def _tokens(text: str | tuple[int, ...]) -> int:
    return estimate(bytes_of(text)) if isinstance(text, str) else len(text)
