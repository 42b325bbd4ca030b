from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.core import errors
from app.core.request import EmbeddingRequest, Embeddings
from app.wire import ollama
from tests.wire.ollama_cases import TERMS, card


def ask(*inputs: Any, dimensions: int | None = None, **body: Any) -> EmbeddingRequest:
    return EmbeddingRequest("bge", inputs, TERMS, body, dimensions)


def read(reply: Any, request: EmbeddingRequest) -> Embeddings:
    body = reply if isinstance(reply, bytes) else orjson.dumps(reply)
    return ollama.read_embed(body, request, card(), ollama.write_embed(request, card()))


def test_texts_go_out_whole_in_the_models_window() -> None:
    """A text that was cut silently would be found by half of what it says."""
    outgoing = ollama.write_embed(ask("a", "b", dimensions=2, keep_alive="5m", user="u", model="bge"), card())
    assert orjson.loads(outgoing.body) == {
        "model": "rnj-1",
        "input": ["a", "b"],
        "truncate": False,
        "options": {"num_ctx": 4096},
        "dimensions": 2,
        "keep_alive": "5m",
    }
    assert outgoing.ignored == ("user",)
    assert "options" not in orjson.loads(ollama.write_embed(ask("a"), card(None)).body)


def test_token_lists_are_refused() -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        ollama.write_embed(ask((1, 2)), card())
    assert caught.value.param == "input"


def test_vectors_come_back_in_order() -> None:
    reply = {"embeddings": [[1, 0.5], [0.25, -1]], "prompt_eval_count": 4}
    got = read(reply, ask("a", "b", user="u"))
    assert got == Embeddings(((1.0, 0.5), (0.25, -1.0)), "rnj-1", 4, ("user",))


@pytest.mark.parametrize("count", [None, 0, -1, "4", True, 1.5, 2**64 - 1])
def test_tokens_that_were_not_counted_are_unknown(count: Any) -> None:
    assert read({"embeddings": [[1.0]], "prompt_eval_count": count}, ask("a")).prompt_tokens is None


@pytest.mark.parametrize(
    "reply",
    [
        b"<html>",
        [],
        {},
        {"embeddings": 3},
        {"embeddings": []},
        {"embeddings": [[1.0], [1.0]]},
        {"embeddings": [3]},
        {"embeddings": [[]]},
        {"embeddings": [["1.0"]]},
        {"embeddings": [[True]]},
    ],
)
def test_nonsense_is_the_upstreams_fault(reply: Any) -> None:
    with pytest.raises(errors.BadReply):
        read(reply, ask("a"))


def test_uneven_or_unwanted_lengths_are_noticed() -> None:
    with pytest.raises(errors.BadReply):
        read({"embeddings": [[1.0], [1.0, 2.0]]}, ask("a", "b"))
    with pytest.raises(errors.UnsupportedParameter) as caught:
        read({"embeddings": [[1.0, 2.0]]}, ask("a", dimensions=1))
    assert caught.value.param == "dimensions"


def test_an_error_inside_a_good_reply() -> None:
    with pytest.raises(errors.ContextLengthExceeded):
        read({"error": "the input length exceeds the context length"}, ask("a"))
