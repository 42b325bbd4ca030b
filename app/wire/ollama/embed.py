"""Ollama's `/api/embed`, seen from the client: texts in, vectors out, and nothing cut on the way."""

from __future__ import annotations

from typing import Any, Final

import orjson

from app.core.card import Card
from app.core.errors import BadReply, UnsupportedParameter
from app.core.request import EmbeddingRequest, Embeddings
from app.wire.codec import Outgoing
from app.wire.fields import parse, token_count
from app.wire.ollama.faults import fault
from app.wire.ollama.window import window

_KNOWN: Final = frozenset({"model", "input", "dimensions", "encoding_format", "keep_alive"})
_NUMBERS: Final = frozenset({int, float})
LARGEST: Final = 3.4028234663852886e38  # of 32-bit floats, which is what clients get


def write_embed(request: EmbeddingRequest, card: Card) -> Outgoing:
    """Raises `UnsupportedParameter` for token lists: Ollama embeds texts only."""
    if any(not isinstance(text, str) for text in request.inputs):
        raise UnsupportedParameter("this model takes texts, not token lists", param="input")
    body: dict[str, Any] = {"model": card.name, "input": request.inputs, "truncate": False}
    if (told := window(card)) is not None:
        body["options"] = {"num_ctx": told}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if (keep_alive := request.body.get("keep_alive")) is not None:
        body["keep_alive"] = keep_alive
    ignored = tuple(name for name, value in request.body.items() if name not in _KNOWN and value is not None)
    return Outgoing(orjson.dumps(body), ignored=ignored)


def read_embed(body: bytes, request: EmbeddingRequest, card: Card, outgoing: Outgoing) -> Embeddings:
    """The vectors of a whole reply, one per input."""
    try:
        reply = parse(body)
    except ValueError:
        raise BadReply("the upstream's embeddings are not JSON") from None
    if not isinstance(reply, dict):
        raise BadReply("the upstream's embeddings are not an object")
    if error := reply.get("error"):
        raise fault(error)
    rows = reply.get("embeddings")
    if not isinstance(rows, list) or len(rows) != len(request.inputs):
        raise BadReply("the upstream did not send one embedding per input")
    vectors = tuple(_vector(row) for row in rows)
    if len({len(vector) for vector in vectors}) > 1:
        raise BadReply("the upstream's embeddings differ in length")
    if request.dimensions is not None and vectors and len(vectors[0]) != request.dimensions:
        raise UnsupportedParameter(f"this model's embeddings have {len(vectors[0])} dimensions", param="dimensions")
    return Embeddings(vectors, card.name, token_count(reply, "prompt_eval_count") or None, outgoing.ignored)


def _vector(row: Any) -> tuple[float, ...]:
    if not isinstance(row, list) or not row or not set(map(type, row)) <= _NUMBERS:
        raise BadReply("the upstream's embedding is not a list of numbers")
    numbers = tuple(map(float, row))
    if not -LARGEST <= min(numbers) <= max(numbers) <= LARGEST:
        raise BadReply("the upstream's embedding holds a number that 32 bits do not hold")
    return numbers
