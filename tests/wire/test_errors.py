from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import (
    AccountFault,
    BadReply,
    Busy,
    ContextLengthExceeded,
    GatewayError,
    Rejected,
    RequestTooLarge,
    ServerFault,
    Throttled,
    TimedOut,
)
from app.wire.errors import MESSAGE_LIMIT, clean, error_from, error_of, retry_after


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, BadReply),
        (400, Rejected),
        (401, AccountFault),
        (402, AccountFault),
        (403, AccountFault),
        (404, AccountFault),
        (405, AccountFault),
        (408, ServerFault),
        (409, Rejected),
        (413, RequestTooLarge),
        (418, Rejected),
        (422, Rejected),
        (429, Throttled),
        (500, ServerFault),
        (502, ServerFault),
        (503, Busy),
        (504, TimedOut),
        (529, Busy),
    ],
)
def test_each_status_blames_the_right_party(status: int, kind: type[GatewayError]) -> None:
    assert type(error_of(status, "")) is kind


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 512 tokens. However, your prompt contains at least 513 input tokens",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "the prompt is longer than the context length currently available to the model",
        "Requested tokens (600) exceed context window of 512",
    ],
)
def test_an_overflow_is_told_apart_so_that_a_larger_window_is_tried(message: str) -> None:
    assert isinstance(error_of(400, message), ContextLengthExceeded)
    assert isinstance(error_of(500, message), ContextLengthExceeded)
    assert isinstance(error_of(502, message), ServerFault)


@pytest.mark.parametrize("status", [400, 429])
def test_a_spend_limit_is_our_account_and_not_the_caller_or_a_throttle(status: int) -> None:
    assert isinstance(error_of(status, "no", code="insufficient_quota"), AccountFault)
    assert isinstance(error_of(status, "You exceeded your current quota, please check your plan"), AccountFault)


def test_a_model_missing_there_is_our_configuration_whatever_the_status() -> None:
    assert isinstance(error_of(400, "no such model", code="model_not_found"), AccountFault)


def test_a_tool_that_is_about_billing_is_not_an_account_problem() -> None:
    assert isinstance(error_of(400, "Invalid tool name: billing lookup"), Rejected)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "x", "type": "overloaded_error"}, Busy),
        ({"message": "x", "code": 429}, Throttled),
        ({"message": "x", "code": "404"}, AccountFault),
        ({"message": "x", "type": "BadRequestError", "code": 400}, Rejected),
        ({"message": "x", "type": "BadRequestError", "param": "input_tokens", "code": 400}, ContextLengthExceeded),
        ({"message": "x", "code": "context_length_exceeded"}, ContextLengthExceeded),
        ({"message": ["x"], "code": True, "type": {}}, ServerFault),
        ({"code": 99999}, ServerFault),
        ({}, ServerFault),
        ("boom", ServerFault),
        (None, ServerFault),
        ([1], ServerFault),
    ],
)
def test_error_objects_inside_a_200(error: Any, kind: type[GatewayError]) -> None:
    assert type(error_from(error)) is kind


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["message", "type", "code", "param"]), inner)
    ),
    max_leaves=8,
)


@given(json_values)
def test_no_error_body_can_break_us(error: Any) -> None:
    assert isinstance(error_from(error), GatewayError)
    assert isinstance(error_from(error, status=400), GatewayError)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:30 GMT", "date": "Fri, 20 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Fri, 20 Nov 2026 09:00:00 GMT", "date": "Fri, 20 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:30 GMT"}, None),
        ({"retry-after": "1e300"}, 86_400.0),
        ({"retry-after-ms": "1e300"}, 86_400.0),
        ({"retry-after": "Fri, 20 Nov 9999 10:00:30 GMT", "date": "Fri, 20 Nov 2026 10:00:00 GMT"}, 86_400.0),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:30", "date": "Fri, 20 Nov 2026 10:00:00 GMT"}, None),
    ],
)
def test_how_long_an_upstream_asks_us_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_throttle_carries_its_wait() -> None:
    assert error_of(429, "slow down", {"retry-after": "3"}).retry_after == 3.0
    assert error_of(503, "busy", {"retry-after": "4"}).retry_after == 4.0


@pytest.mark.parametrize(
    "secret",
    [
        "http://gpu-1:8000/v1",
        "https://user:pw@inner.example/x?y",
        "10.0.0.7:8000",
        "gpu.cluster.local:8000",
        "localhost:11434",
        "[::1]:8000",
        "sk-proj-abc***def",
        "gpu-1:8000",
        "vllm_7:80",
        "3f2a9c:11434",
        "/srv/models/llama.gguf",
        "/llama.gguf",
        "C:\\models\\llama.gguf",
        "\\\\nas\\models",
    ],
)
def test_a_callers_error_never_names_an_upstreams_address_or_key(secret: str) -> None:
    error = error_of(400, f"cannot reach {secret} for model qwen2.5:7b")
    assert secret not in error.message
    assert error.message.startswith("cannot reach [") and error.message.endswith("for model qwen2.5:7b")


@pytest.mark.parametrize(
    "message",
    [
        "model qwen3:14b at 12:30:45 wants text/plain and/or input: 400",
        "use /think or </think>.",
        "qwen2.5:7b, x:latest",
    ],
)
def test_what_is_no_address_stays(message: str) -> None:
    assert clean(message) == message


@pytest.mark.parametrize("param", ["messages[0].content", "tools", "x-y_z.0"])
def test_the_field_an_upstream_names_is_passed_on(param: str) -> None:
    assert error_from({"message": "no", "param": param}, status=400).param == param


@pytest.mark.parametrize("param", ["http://gpu-1:8000/v1", "/srv/models", "a b", "tools\n", "", "x" * 129, "é"])
def test_what_is_no_field_is_not_passed_on_as_one(param: str) -> None:
    """An upstream could else put its address, or a header of its own, before the caller."""
    assert error_from({"message": "no", "param": param}, status=400).param is None


def test_a_page_of_text_is_cut_to_a_sentence() -> None:
    assert len(clean("word\n" * 10_000)) == MESSAGE_LIMIT
