from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import errors
from app.wire.ollama.faults import fault, read_error

LLAMA = {
    "error": {
        "code": 400,
        "message": "request (8889 tokens) exceeds the available context size (4096 tokens), try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 8889,
        "n_ctx": 4096,
    }
}
TOO_LONG = "the prompt is longer than the context length currently available to the model; shorten the prompt"
NESTED: Any = {"error": "{" * 3}
DEEP = orjson.dumps({"error": orjson.dumps({"error": orjson.dumps({"error": "x"}).decode()}).decode()})


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (404, "model 'nope' not found", errors.AccountFault),
        (404, 'model "nope" not found, try pulling it first', errors.AccountFault),
        (400, TOO_LONG, errors.ContextLengthExceeded),
        (400, "the input length exceeds the context length", errors.ContextLengthExceeded),
        (400, orjson.dumps(LLAMA).decode(), errors.ContextLengthExceeded),
        (400, LLAMA["error"], errors.ContextLengthExceeded),
        (500, "Context size has been exceeded.", errors.ContextLengthExceeded),
        (400, "rnj-1 does not support tools", errors.UnsupportedParameter),
        (400, '"rnj-1" does not support thinking', errors.UnsupportedParameter),
        (400, 'think value "medium" is not supported for this model', errors.UnsupportedParameter),
        (400, "invalid option: temperature", errors.Rejected),
        (503, "server busy, please try again.  maximum pending requests exceeded", errors.Busy),
        (500, "model requires more system memory (9.1 GiB) than is available (4.0 GiB)", errors.ServerFault),
        (500, {}, errors.ServerFault),
        (499, "context canceled", errors.Broken),
        (401, "unauthorized", errors.AccountFault),
        (429, "too many concurrent requests", errors.Throttled),
        (502, None, errors.ServerFault),
    ],
)
def test_each_of_its_errors_has_a_meaning(status: int, error: Any, kind: type[errors.GatewayError]) -> None:
    """Blamed wrongly, an error is retried where it cannot help, or not where it could."""
    assert type(read_error(status, {}, orjson.dumps({"error": error}))) is kind


@pytest.mark.parametrize(
    ("error", "param"),
    [
        ("x does not support tools", "tools"),
        ("x does not support thinking", "reasoning_effort"),
        ("this model does not support image input", "messages"),
        ("x does not support chat", "model"),
    ],
)
def test_what_a_model_cannot_do_names_the_field(error: str, param: str) -> None:
    assert read_error(400, {}, orjson.dumps({"error": error})).param == param


def test_an_overlong_request_is_told_its_numbers() -> None:
    error = read_error(400, {}, orjson.dumps({"error": orjson.dumps(LLAMA).decode()}))
    assert error.message == "the request has 8889 tokens, the model's context window is 4096"
    assert error.param == "messages"


def test_a_busy_server_may_say_for_how_long() -> None:
    error = read_error(503, {"retry-after": "7"}, b'{"error":"server busy, please try again"}')
    assert isinstance(error, errors.Busy)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("model 'x' not found", errors.AccountFault),
        ("an error was encountered while running the model: CUDA error", errors.ServerFault),
        (TOO_LONG, errors.ContextLengthExceeded),
        ({"message": "boom", "type": 7}, errors.ServerFault),
        (True, errors.ServerFault),
    ],
)
def test_an_error_inside_a_good_reply_has_a_meaning(error: Any, kind: type[errors.GatewayError]) -> None:
    assert type(fault(error)) is kind


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b"[]", b'"x"', orjson.dumps(NESTED), DEEP, b"\xff"])
def test_a_proxys_error_page_is_an_error_all_the_same(body: bytes) -> None:
    assert isinstance(read_error(502, {}, body), errors.ServerFault)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.integers(300, 600), st.dictionaries(st.sampled_from(["error", "message", "type", "n_ctx"]), json_values))
def test_no_error_body_breaks_the_reader(status: int, body: dict[str, Any]) -> None:
    try:
        dumped = orjson.dumps(body)
    except TypeError:  # an integer beyond 64 bits
        return
    assert isinstance(read_error(status, {}, dumped), errors.GatewayError)
