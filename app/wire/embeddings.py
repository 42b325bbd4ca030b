"""OpenAI's embeddings wire: towards clients for every upstream, and towards upstreams that speak it too.

Vectors travel as 32-bit floats. Upstreams are asked for base64, which official clients ask for by default too, so that
a reply is read and written without a Python number per dimension.
"""

from __future__ import annotations

import binascii
from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from app.core.card import Card
from app.core.errors import BadReply, InvalidJson, InvalidValue, UnsupportedParameter
from app.core.request import EmbeddingRequest, Embeddings, Terms
from app.core.secret import holds_key
from app.core.tokens import estimate
from app.wire.codec import Outgoing
from app.wire.fields import MAX_DEPTH, TooDeep, parse

MAX_INPUTS: Final = 2_048
MAX_TOKENS: Final = 300_000  # of all token lists of one request together
MAX_DIMENSIONS: Final = 65_536
_VOCABULARY: Final = 2**31
_FLOAT32: Final = np.dtype("<f4")

Vector = NDArray[np.float32]


# --- from and towards clients ---------------------------------------------------------------------------------------


def read_request(body: bytes, terms: Terms) -> EmbeddingRequest:
    """Raises `InvalidJson`, or `InvalidValue` naming the field in `param`."""
    try:
        parsed = parse(body)
    except TooDeep:
        raise InvalidJson(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    except ValueError:
        raise InvalidJson("The body is not valid JSON.") from None
    if not isinstance(parsed, dict):
        raise InvalidJson("The body must be a JSON object.")
    return EmbeddingRequest(
        model=_model(parsed.get("model")),
        inputs=_inputs(parsed.get("input")),
        terms=terms,
        body=parsed,
        dimensions=_dimensions(parsed.get("dimensions")),
        base64=_is_base64(parsed),
    )


def _model(value: Any) -> str:
    if not isinstance(value, str) or not value or holds_key(value):
        raise InvalidValue("`model` must be the name of a model.", param="model")
    return value


def _inputs(value: Any) -> tuple[str, ...] | tuple[tuple[int, ...], ...]:
    """One text, texts, one list of tokens, or lists of tokens; never a mixture, nothing empty."""
    if isinstance(value, str):
        return _texts([value], "input")
    if not isinstance(value, list):
        raise InvalidValue("`input` must be a text, a list of texts, or tokens.", param="input")
    if not value:
        raise InvalidValue("`input` must not be empty.", param="input")
    if isinstance(value[0], int):
        return (_tokens(value, "input"),)
    if len(value) > MAX_INPUTS:
        raise InvalidValue(f"`input` holds {len(value)} inputs; at most {MAX_INPUTS} are taken.", param="input")
    return _token_lists(value) if isinstance(value[0], list) else _texts(value, "input[{}]")


def _texts(values: list[Any], place: str) -> tuple[str, ...]:
    for index, value in enumerate(values):
        if not isinstance(value, str) or not value:
            param = place.format(index)
            raise InvalidValue(f"`{param}` must be a text that is not empty.", param=param)
    return tuple(values)


def _token_lists(values: list[Any]) -> tuple[tuple[int, ...], ...]:
    lists = tuple(_tokens(value, f"input[{index}]") for index, value in enumerate(values))
    if sum(map(len, lists)) > MAX_TOKENS:
        raise InvalidValue(f"`input` holds more than {MAX_TOKENS} tokens together.", param="input")
    return lists


def _tokens(values: Any, param: str) -> tuple[int, ...]:
    if not isinstance(values, list) or not values or set(map(type, values)) != {int}:
        raise InvalidValue(f"`{param}` must be a list of tokens that is not empty.", param=param)
    if len(values) > MAX_TOKENS:
        raise InvalidValue(f"`{param}` holds more than {MAX_TOKENS} tokens.", param=param)
    if min(values) < 0 or max(values) >= _VOCABULARY:
        raise InvalidValue(f"`{param}` holds a number that is no token.", param=param)
    return tuple(values)


def _dimensions(value: Any) -> int | None:
    if value is not None and not (type(value) is int and 0 < value <= MAX_DIMENSIONS):
        raise InvalidValue("`dimensions` must be a positive integer.", param="dimensions")
    return value


def _is_base64(parsed: Mapping[str, Any]) -> bool:
    encoding = parsed.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise InvalidValue("`encoding_format` must be `float` or `base64`.", param="encoding_format")
    if not isinstance(parsed.get("user"), (str, type(None))):
        raise InvalidValue("`user` must be a text.", param="user")
    return encoding == "base64"


def write_reply(embeddings: Embeddings, request: EmbeddingRequest, tierway: Mapping[str, Any] | None = None) -> bytes:
    """The reply as its client asked for it; `tierway` is the object of that name. Tokens that the upstream did not
    count are estimated, because clients add them up."""
    tokens = embeddings.prompt_tokens
    if tokens is None:
        tokens = sum(map(_estimate, request.inputs))
        tierway = tierway and {**tierway, "usage_estimated": True}
    write = _write_base64 if request.base64 else _write_floats
    reply: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": write(vector)}
            for index, vector in enumerate(embeddings.vectors)
        ],
        "model": embeddings.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    if tierway is not None:
        reply["tierway"] = tierway
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)


def _estimate(given: str | tuple[int, ...]) -> int:
    return estimate(len(given.encode())) if isinstance(given, str) else len(given)


def _write_floats(vector: Sequence[float]) -> Vector:
    return np.asarray(vector, dtype=np.float32)


def _write_base64(vector: Sequence[float]) -> str:
    return b64encode(np.asarray(vector, dtype=_FLOAT32).tobytes()).decode()


# --- towards and from upstreams -------------------------------------------------------------------------------------


def write_request(request: EmbeddingRequest, card: Card) -> Outgoing:
    """The request for an OpenAI-compatible upstream, unknown fields of the caller's included.

    Quirks: `embedding_drop` (fields the server refuses), `embedding_format` (`float` for a server without base64).
    """
    dropped = frozenset(card.quirks.get("embedding_drop", ()))
    if request.dimensions is not None and "dimensions" in dropped:
        raise UnsupportedParameter(f"{card.name} cannot shorten its vectors.", param="dimensions")
    body = {**request.body, "model": card.name, "encoding_format": card.quirks.get("embedding_format", "base64")}
    sent = {name: value for name, value in body.items() if name not in dropped}
    # What format the client gets does not depend on what the upstream was asked for.
    ignored = tuple(sorted((dropped & request.body.keys()) - {"encoding_format"}))
    return Outgoing(orjson.dumps(sent), ignored=ignored)


def read_reply(body: bytes, request: EmbeddingRequest, card: Card, ignored: tuple[str, ...] = ()) -> Embeddings:
    """One vector per input, in order; whatever else came is a `BadReply`.

    Vectors of another length than the caller demanded mean that the upstream passed over `dimensions`.
    """
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadReply("The upstream's embeddings are not JSON.") from None
    data = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(data, list) or len(data) != len(request.inputs):
        raise BadReply("The upstream did not send one embedding per input.")
    vectors = tuple(map(_read_vector, _in_order(data)))
    if len(set(map(len, vectors))) != 1:
        raise BadReply("The upstream's embeddings are not all of one length.")
    if request.dimensions is not None and len(vectors[0]) != request.dimensions:
        error = UnsupportedParameter(
            f"{card.name} makes vectors of {len(vectors[0])} dimensions only.", param="dimensions"
        )
        error.billed = True
        raise error
    return Embeddings(vectors, card.name, _prompt_tokens(reply), ignored)


def _in_order(data: list[Any]) -> list[Any]:
    """The `embedding` of each entry, by `index`; a reply without any index is in order already."""
    if not all(isinstance(entry, dict) for entry in data):
        raise BadReply("The upstream's embeddings are not objects.")
    indexes = [entry.get("index", position) for position, entry in enumerate(data)]
    if set(map(type, indexes)) != {int} or sorted(indexes) != list(range(len(data))):
        raise BadReply("The upstream's embeddings are not numbered from 0 without gaps.")
    vectors: list[Any] = [None] * len(data)
    for index, entry in zip(indexes, data, strict=True):
        vectors[index] = entry.get("embedding")
    return vectors


def _read_vector(value: Any) -> array[float]:
    floats = _decoded(value) if isinstance(value, str) else _numbers(value)
    if not floats.size or not np.isfinite(floats).all():
        raise BadReply("An embedding of the upstream's is empty or holds what is no number.")
    return array("f", floats.tobytes())


def _decoded(text: str) -> Vector:
    try:
        return np.frombuffer(b64decode(text, validate=True), _FLOAT32).astype(np.float32, copy=False)
    except (binascii.Error, ValueError):
        raise BadReply("An embedding of the upstream's is not base64 of 32-bit floats.") from None


def _numbers(value: Any) -> Vector:
    if not isinstance(value, list) or not set(map(type, value)) <= {float, int}:
        raise BadReply("An embedding of the upstream's is not a list of numbers.")
    with np.errstate(over="ignore"):
        return np.asarray(value, dtype=np.float32)


def _prompt_tokens(reply: Mapping[str, Any]) -> int | None:
    usage = reply.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return tokens if type(tokens) is int and 0 <= tokens < _VOCABULARY else None
