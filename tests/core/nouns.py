"""Cards and requests for tests: what a test does not say is as plain as can be."""

from __future__ import annotations

from typing import Any

from app.core.card import Ability, Card
from app.core.request import EmbeddingRequest, Request, Terms

EVERYTHING = frozenset(Ability) - {Ability.EMBEDDINGS}


def card(id_: str, *, local: bool = True, abilities: frozenset[Ability] = EVERYTHING, **fields: Any) -> Card:
    upstream, _, name = id_.partition("/")
    return Card(id_, name, upstream, fields.pop("kind", "openai"), local, abilities, **fields)


def paid(id_: str, **fields: Any) -> Card:
    return card(id_, local=False, **fields)


def terms(**fields: Any) -> Terms:
    return Terms(**{"request_id": "req-1", "root_id": "req-1", **fields})


def chat(model: str = "auto", *needs: Ability, **fields: Any) -> Request:
    """A chat request; `terms` may be given as a whole."""
    own = {"messages": (), "terms": terms(), "dialect": "chat", "body": {}, **fields}
    return Request(model, needs=frozenset({Ability.CHAT, *needs}), **own)


def embedding(model: str = "auto", inputs: Any = ("a text",), **fields: Any) -> EmbeddingRequest:
    return EmbeddingRequest(model, inputs, **{"terms": terms(), "body": {}, **fields})
