from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.card import Ability
from app.core.errors import CallerError, InvalidValue
from app.core.messages import TextPart
from app.wire.chat.request import HINTS, read_request
from app.wire.codec import Limits
from tests.wire.chat_cases import SAY, TERMS, TOOL, ask

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
FILE = {"type": "file", "file": {"file_id": "f"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def test_the_smallest_request() -> None:
    request = ask()
    assert (request.model, request.dialect, request.stream, request.n) == ("auto", "chat", False, 1)
    assert request.messages[0].parts == (TextPart("Go."),)
    assert request.needs == {Ability.CHAT}
    assert request.input_bytes == 3
    assert not request.hints and not request.extra
    assert request.body == SAY


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"tools": [TOOL]}, {Ability.TOOLS}),
        ({"tools": [TOOL], "tool_choice": "none"}, set()),
        ({"tools": [TOOL], "tool_choice": "required"}, {Ability.TOOLS, Ability.FORCED_TOOLS}),
        ({"tools": [{"type": "custom", "custom": {"name": "g"}}]}, {Ability.TOOLS, Ability.CUSTOM_TOOLS}),
        ({"functions": [{"name": "f"}], "function_call": {"name": "f"}}, {Ability.TOOLS, Ability.FORCED_TOOLS}),
        ({"messages": [CALL, {"role": "user", "content": "x"}]}, {Ability.TOOLS}),
        ({"messages": [{"role": "tool", "tool_call_id": "1", "content": "x"}]}, {Ability.TOOLS}),
        ({"messages": [{"role": "tool", "tool_call_id": "1", "content": [IMAGE]}]}, {Ability.TOOLS, Ability.IMAGES}),
        ({"messages": [{"role": "assistant", "content": "x"}]}, {Ability.PREFILL}),
        (user(IMAGE), {Ability.IMAGES}),
        (user(AUDIO), {Ability.AUDIO}),
        (user(FILE), {Ability.FILES}),
        ({"modalities": ["text", "audio"], "audio": {"voice": "x"}}, {Ability.AUDIO_OUTPUT}),
        ({"modalities": ["text"]}, set()),
        ({"response_format": {"type": "json_object"}}, {Ability.JSON_OBJECT}),
        ({"response_format": SCHEMA}, {Ability.JSON_SCHEMA}),
        ({"n": 2}, {Ability.MANY}),
        ({"stop": "x"}, {Ability.STOP}),
        ({"stop": ""}, set()),
        ({"logprobs": True}, {Ability.LOGPROBS}),
        ({"logprobs": False}, set()),
        ({"reasoning_effort": "high"}, set()),
        ({"temperature": 0.5, "seed": 7}, set()),
    ],
)
def test_what_a_model_must_be_able_to_do(fields: dict[str, Any], needs: set[Ability]) -> None:
    """A need that is missed sends the request to a model that silently ignores it."""
    assert ask(**fields).needs == {Ability.CHAT} | needs


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 5),
        ({"max_tokens": None, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 10**9}, 10**9),
    ],
)
def test_the_smaller_limit_counts(fields: dict[str, Any], limit: int | None) -> None:
    assert ask(**fields).max_tokens == limit


def test_options_are_read() -> None:
    request = ask(
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
        stop=["a", "", "b"],
        logprobs=True,
        top_logprobs=3,
        tools=[TOOL],
        parallel_tool_calls=False,
        reasoning_effort="xhigh",
    )
    assert request.stream and request.include_usage
    assert request.stop == ("a", "b")
    assert request.logprobs == 3
    assert request.parallel_tool_calls is False
    assert request.effort == "xhigh"


def test_hints_and_unknown_fields_are_told_apart() -> None:
    hints: dict[str, Any] = {
        "temperature": 1,
        "top_p": 0.5,
        "presence_penalty": -2,
        "frequency_penalty": 2.0,
        "seed": -3,
        "logit_bias": {"1": -100},
        "user": "u",
        "safety_identifier": "s",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "flex",
        "prediction": {"type": "content", "content": "x"},
        "verbosity": "low",
        "moderation": {"model": "x"},
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "prompt_cache_options": {"ttl": "30m"},
    }
    assert set(hints) == set(HINTS)
    extra = {"top_k": 4, "chat_template_kwargs": {"enable_thinking": False}, "web_search_options": {}}
    request = ask(**hints, **extra, ignored=None, top_p2=None)
    assert request.hints == hints
    assert request.extra == extra


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"n": 0}, "n"),
        ({"n": 1.0}, "n"),
        ({"n": 129}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9 + 1}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 2**63}, "max_completion_tokens"),
        ({"max_completion_tokens": "5"}, "max_completion_tokens"),
        ({"stop": 5}, "stop"),
        ({"stop": {}}, "stop"),
        ({"stop": False}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [None]}, "stop"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"modalities": "audio"}, "modalities"),
        ({"modalities": [["audio"]]}, "modalities"),
        ({"modalities": ["video"]}, "modalities"),
        ({"audio": "x"}, "audio"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"seed": 1.5}, "seed"),
        ({"logit_bias": []}, "logit_bias"),
        ({"store": 1}, "store"),
        ({"user": {}}, "user"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        ask(**fields)
    assert caught.value.param == param


def test_every_text_a_model_reads_is_counted_in_bytes() -> None:
    """Too small a count lets a request pass into a window that it does not fit."""
    messages: list[Any] = [
        {"role": "system", "content": "12345"},
        {"role": "user", "content": [{"type": "text", "text": "é"}, IMAGE]},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "123",
            "refusal": "12",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "1234"},
    ]
    assert ask(messages=messages).input_bytes == 5 + 2 + 3 + 2 + 3 + 4
    tool = {"type": "function", "function": {"name": "f", "description": "dd", "parameters": {"a": 1}}}
    assert ask(tools=[tool]).input_bytes == 3 + 1 + 2 + len('{"a":1}')
    assert ask(response_format=SCHEMA).input_bytes == 3 + len('{"type":"object"}')


FIELDS = st.sampled_from(
    """model messages tools tool_choice functions function_call response_format stop n stream stream_options logprobs
    top_logprobs modalities reasoning_effort metadata temperature x""".split()
)
KEYS = st.sampled_from(
    """role content type text function name tool_calls id arguments custom image_url url tool_call_id allowed_tools
    tools mode json_schema schema thinking_blocks cache_control""".split()
)
WORDS = st.sampled_from(["user", "assistant", "tool", "function", "text", "custom", "auto", "json_schema", ""])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**40) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


@given(st.dictionaries(FIELDS, JSON))
def test_no_body_can_break_us(fields: dict[str, Any]) -> None:
    for body in (fields, {**SAY, **fields}):
        try:
            read_request(orjson.dumps(body), TERMS, Limits())
        except CallerError as error:
            assert error.status == 400
            assert error.param
