"""The embeddings wire: what clients may send, what they get back, and upstreams that send anything at all."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from app.core.card import Ability, Card
from app.core.errors import BadReply, CallerError, GatewayError, InvalidJson, InvalidValue, UnsupportedParameter
from app.core.request import EmbeddingRequest, Embeddings, Terms
from app.wire.embeddings import MAX_INPUTS, MAX_TOKENS, read_reply, read_request, write_reply, write_request

TERMS = Terms("req-1", "req-1")
CARD = Card(id="gpu/e5", name="e5", upstream="gpu", kind="vllm", local=True, abilities=frozenset({Ability.EMBEDDINGS}))
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def ask(value: Any = "hello", **fields: Any) -> EmbeddingRequest:
    return read_request(orjson.dumps({"model": "e5", "input": value, **fields}), TERMS)


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def reply(*vectors: Any, **fields: Any) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return orjson.dumps({"object": "list", "data": data, **fields})


def card(**quirks: Any) -> Card:
    return Card(id="x/e5", name="e5", upstream="x", kind="openai", local=False, abilities=frozenset(), quirks=quirks)


# --- what clients send ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("one", ("one",)),
        (["one", "two"], ("one", "two")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_every_form_of_input_is_taken(given: Any, inputs: Any) -> None:
    """Official clients send all four (langchain sends token lists)."""
    request = ask(given)
    assert (request.inputs, request.model, request.terms.request_id) == (inputs, "e5", "req-1")
    assert (request.dimensions, request.base64, request.id) == (None, False, "req-1")


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("", "input"),
        ([], "input"),
        (None, "input"),
        ({"text": "x"}, "input"),
        (3, "input"),
        (["a", ""], "input[1]"),
        (["a", 3], "input[1]"),
        ([None], "input[0]"),
        ([1, "a"], "input"),
        ([True, 2], "input"),
        ([1, 2.5], "input"),
        ([1, -1], "input"),
        ([2**31], "input"),
        ([[1], []], "input[1]"),
        ([[1], ["a"]], "input[1]"),
        ([[1], "a"], "input[1]"),
        (["a"] * (MAX_INPUTS + 1), "input"),
        ([1] * (MAX_TOKENS + 1), "input"),
        ([[1] * MAX_TOKENS, [1]], "input"),
    ],
)
def test_a_wrong_input_is_refused_by_its_place(value: Any, param: str) -> None:
    """A batch of 2,000 texts with one bad entry cannot be mended without knowing which."""
    with pytest.raises(InvalidValue) as refused:
        ask(value)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", None),
        ("model", ""),
        ("model", 3),
        ("dimensions", 0),
        ("dimensions", -1),
        ("dimensions", 1.5),
        ("dimensions", True),
        ("dimensions", "64"),
        ("dimensions", 10**9),
        ("encoding_format", "hex"),
        ("encoding_format", 3),
        ("encoding_format", ["float"]),
        ("user", 3),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidValue) as refused:
        ask(**{field: value})
    assert refused.value.param == field


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"model": NaN}'])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        read_request(body, TERMS)


def test_most_inputs_allowed_are_allowed() -> None:
    assert len(ask(["a"] * MAX_INPUTS).inputs) == MAX_INPUTS


@given(st.dictionaries(st.sampled_from(["model", "input", "dimensions", "encoding_format", "user", "x"]), JSON))
def test_any_json_is_taken_or_refused(fields: dict[str, Any]) -> None:
    """A type error here would be a 500 for what is the caller's mistake."""
    try:
        request = read_request(orjson.dumps(fields), TERMS)
    except CallerError:
        return
    assert request.inputs


# --- what they get back ---------------------------------------------------------------------------------------------


def test_floats_are_written_as_floats() -> None:
    """A client that did not ask for base64 must be able to use the numbers as they are."""
    written = orjson.loads(write_reply(Embeddings(((0.5, -1.0), (0.25, 2.0)), "e5", 7), ask(["a", "b"])))
    assert written == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -1.0]},
            {"object": "embedding", "index": 1, "embedding": [0.25, 2.0]},
        ],
        "model": "e5",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    CreateEmbeddingResponse.model_validate(written, strict=True)


def test_base64_is_little_endian_32_bit_floats() -> None:
    """The official clients decode exactly this, and ask for it unless told otherwise."""
    written = orjson.loads(write_reply(Embeddings(((0.5, -1.0),), "e5", 7), ask(encoding_format="base64")))
    assert written["data"][0]["embedding"] == packed(0.5, -1.0)


@pytest.mark.parametrize(("given", "tokens"), [("eight by", 2), ("ééé", 2), ([5, 6, 7], 3)])
def test_tokens_nobody_counted_are_estimated_and_said_to_be(given: Any, tokens: int) -> None:
    """Clients add up `usage`; a null breaks them, a zero lies to them."""
    written = orjson.loads(write_reply(Embeddings(((1.0,),), "e5", None), ask(given), {"model": "gpu/e5"}))
    assert written["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert written["tierway"] == {"model": "gpu/e5", "usage_estimated": True}


def test_counted_tokens_are_not_called_estimated() -> None:
    written = orjson.loads(write_reply(Embeddings(((1.0,),), "e5", 1), ask(), {"model": "gpu/e5"}))
    assert written["tierway"] == {"model": "gpu/e5"}


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(FLOATS, min_size=n, max_size=n), min_size=1, max_size=4)))
def test_vectors_survive_both_formats_unchanged(vectors: list[list[float]]) -> None:
    """Upstream -> us -> client must be the same 32-bit numbers, whoever speaks base64 or floats."""
    request = ask(["x"] * len(vectors), encoding_format="base64")
    from_floats = read_reply(reply(*vectors), request, CARD)
    from_base64 = read_reply(reply(*(packed(*vector) for vector in vectors)), request, CARD)
    assert (
        [list(vector) for vector in from_floats.vectors] == [list(vector) for vector in from_base64.vectors] == vectors
    )
    for entry, vector in zip(orjson.loads(write_reply(from_floats, request))["data"], vectors, strict=True):
        assert entry["embedding"] == packed(*vector)
    as_floats = write_reply(from_base64, ask(["x"] * len(vectors)))
    again = read_reply(as_floats, request, CARD)
    assert [list(vector) for vector in again.vectors] == vectors


# --- towards upstreams ----------------------------------------------------------------------------------------------


def test_the_upstream_is_asked_under_its_own_name_and_in_base64() -> None:
    outgoing = write_request(ask(["a"], dimensions=2, user="u", task="query", encoding_format="float"), CARD)
    assert orjson.loads(outgoing.body) == {
        "model": "e5",
        "input": ["a"],
        "dimensions": 2,
        "user": "u",
        "task": "query",
        "encoding_format": "base64",
    }
    assert outgoing.ignored == ()


def test_fields_a_server_refuses_are_left_out_and_named() -> None:
    """A server that answers 422 to `user` would else never serve a caller who sends it."""
    picky = card(embedding_drop=("user", "encoding_format"))
    outgoing = write_request(ask(user="u", encoding_format="float"), picky)
    assert orjson.loads(outgoing.body) == {"model": "e5", "input": "hello"}
    assert outgoing.ignored == ("user",)


def test_a_server_without_base64_is_asked_for_floats() -> None:
    assert orjson.loads(write_request(ask(), card(embedding_format="float")).body)["encoding_format"] == "float"


def test_dimensions_are_never_dropped_in_silence() -> None:
    """Vectors of another length do not fit the caller's index."""
    with pytest.raises(UnsupportedParameter) as refused:
        write_request(ask(dimensions=64), card(embedding_drop=("dimensions",)))
    assert refused.value.param == "dimensions"


def numbers(vectors: Sequence[Sequence[float]]) -> list[list[float]]:
    return [list(vector) for vector in vectors]


def test_a_reply_is_put_in_the_order_of_its_indexes() -> None:
    """Mixed up vectors would be a search that finds the wrong documents."""
    body = orjson.dumps({"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]})
    assert numbers(read_reply(body, ask(["a", "b"]), CARD).vectors) == [[1.0], [2.0]]


def test_a_reply_without_indexes_is_in_order() -> None:
    body = orjson.dumps({"data": [{"embedding": [1]}, {"embedding": [2.0]}]})
    read = read_reply(body, ask(["a", "b"]), CARD, ignored=("user",))
    assert (numbers(read.vectors), read.model, read.ignored) == ([[1.0], [2.0]], "e5", ("user",))


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 5}, 5),
        ({"prompt_tokens": 0}, 0),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": True}, None),
        ({"prompt_tokens": 10**12}, None),
        ({}, None),
        ("x", None),
        (None, None),
    ],
)
def test_usage_is_believed_only_where_it_is_one(usage: Any, tokens: int | None) -> None:
    assert read_reply(reply([1.0], usage=usage), ask(), CARD).prompt_tokens == tokens


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"data": {}}',
        reply(),
        reply([1.0], [2.0]),
        reply([]),
        reply(""),
        reply(None),
        reply(["1.5"]),
        reply([True]),
        reply([[1.0]]),
        reply([1e300]),
        reply("AAA"),
        reply("AAAA"),
        reply("not base64!"),
        reply("é"),
        reply(packed(float("nan"))),
        reply(packed(1.0, float("inf"))),
        b'{"data": [3]}',
        b'{"data": [{"index": 1, "embedding": [1.0]}]}',
        b'{"data": [{"index": "0", "embedding": [1.0]}]}',
        b'{"data": [{"index": [], "embedding": [1.0]}]}',
        b'{"data": [{"index": false, "embedding": [1.0]}]}',
        b'{"data": [{"index": 0}]}',
    ],
)
def test_what_is_no_embedding_is_a_bad_reply(body: bytes) -> None:
    """NaN in an index poisons every later search; it must stop here."""
    with pytest.raises(BadReply):
        read_reply(body, ask(), CARD)


def test_vectors_of_unequal_length_are_a_bad_reply() -> None:
    with pytest.raises(BadReply):
        read_reply(reply([1.0], [1.0, 2.0]), ask(["a", "b"]), CARD)


def test_an_upstream_that_passes_over_dimensions_is_noticed() -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        read_reply(reply([1.0, 2.0, 3.0]), ask(dimensions=2), CARD)
    assert refused.value.param == "dimensions" and refused.value.billed, "it was answered, and so it is charged"
    assert numbers(read_reply(reply([1.0, 2.0]), ask(dimensions=2), CARD).vectors) == [[1.0, 2.0]]


@given(st.lists(st.dictionaries(st.sampled_from(["index", "embedding"]), JSON), min_size=1, max_size=2), JSON)
def test_any_reply_ends_in_vectors_or_an_error_of_ours(data: list[Any], usage: Any) -> None:
    try:
        read = read_reply(orjson.dumps({"data": data, "usage": usage}), ask(["a"] * len(data)), CARD)
    except GatewayError:
        return
    assert len(read.vectors) == len(data)


def test_a_nesting_bomb_is_refused_before_it_is_sent_on() -> None:
    """What is nested deeper than JSON can be written was a fault of ours."""
    with pytest.raises(InvalidJson, match="deeper"):
        read_request(b'{"model": "e5", "input": "x", "extra": ' + b"[" * 300 + b"]" * 300 + b"}", TERMS)
