from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.core.card import Ability
from app.core.errors import InvalidJson, InvalidValue, RequestTooLarge
from app.core.messages import MediaPart, Message, TextPart, ToolResultPart, ToolUsePart
from app.core.request import Request
from app.wire import ollama
from app.wire.codec import Limits
from tests.wire.ollama_cases import TERMS

HELLO = {"role": "user", "content": "Hi"}


def read(**fields: Any) -> Request:
    return ollama.read_request(orjson.dumps({"model": "m", "messages": [HELLO], **fields}), TERMS, Limits())


def test_it_streams_unless_told_otherwise() -> None:
    assert read().stream
    assert not read(stream=False).stream


def test_options_are_sorted_by_who_knows_them() -> None:
    request = read(
        options={"num_ctx": 64, "temperature": 0.5, "num_predict": -1, "stop": "x", "top_k": 3},
        keep_alive=0,
        truncate=False,
    )
    assert request.hints == {"temperature": 0.5}
    assert request.extra == {"num_ctx": 64, "top_k": 3, "keep_alive": 0, "truncate": False}
    assert request.max_tokens is None
    assert request.stop == ("x",)
    assert read(options={"num_predict": 5}).max_tokens == 5


def test_what_a_model_must_be_able_to_do() -> None:
    assert read().needs == {Ability.CHAT}
    everything = read(
        messages=[{"role": "user", "images": ["R0lGODdh"]}],
        tools=[{"type": "function", "function": {"name": "f"}}],
        format={"type": "object"},
        think="high",
        logprobs=True,
        options={"stop": ["a"]},
    )
    assert everything.needs == {
        *(Ability.CHAT, Ability.TOOLS, Ability.IMAGES, Ability.JSON_SCHEMA),
        *(Ability.REASONING, Ability.LOGPROBS, Ability.STOP),
    }
    assert everything.messages[0].parts == (MediaPart("image", "image/gif", "R0lGODdh"),)
    assert Ability.JSON_OBJECT in read(format="json").needs
    assert read(format="").format is None


@pytest.mark.parametrize(("think", "effort"), [(True, "medium"), (False, "none"), ("max", "max"), (None, None)])
def test_thinking_is_an_effort(think: Any, effort: str | None) -> None:
    assert read(think=think).effort == effort


def test_turns_with_tools() -> None:
    call = {"function": {"name": "f"}}
    request = read(
        messages=[
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "rain", "tool_name": "f", "tool_call_id": "c"},
        ]
    )
    assert request.messages == (
        Message("assistant", (ToolUsePart("", "f", "{}"),)),
        Message("tool", (ToolResultPart("c", (TextPart("rain"),)),)),
    )
    assert request.input_bytes >= len("rain{}")


def test_no_messages_only_load_the_model() -> None:
    assert read(messages=[]).messages == ()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 3}, "model"),
        ({"model": ""}, "model"),
        ({"messages": {}}, "messages"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{**HELLO, "content": []}]}, "messages[0].content"),
        ({"messages": [{**HELLO, "images": [7]}]}, "messages[0].images[0]"),
        ({"messages": [{**HELLO, "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function"),
        (
            {"messages": [{**HELLO, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"tools": [{"function": {}}]}, "tools[0].function"),
        ({"tools": [{"function": {"name": "f", "parameters": []}}]}, "tools[0].function.parameters"),
        ({"stream": "yes"}, "stream"),
        ({"format": "xml"}, "format"),
        ({"think": "hard"}, "think"),
        ({"options": {"stop": [1]}}, "options.stop"),
        ({"options": {"num_predict": True}}, "options.num_predict"),
        ({"logprobs": True, "top_logprobs": "x"}, "top_logprobs"),
    ],
)
def test_wrong_types_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model":NaN}'])
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        ollama.read_request(body, TERMS, Limits())


def test_limits_hold() -> None:
    body = orjson.dumps({"model": "m", "messages": [HELLO] * 2, "tools": [{"function": {"name": "f"}}] * 2})
    with pytest.raises(RequestTooLarge):
        ollama.read_request(body, TERMS, Limits(body_bytes=9))
    with pytest.raises(InvalidValue):
        ollama.read_request(body, TERMS, Limits(messages=1))
    with pytest.raises(InvalidValue):
        ollama.read_request(body, TERMS, Limits(tools=1))


def test_a_nesting_bomb_is_refused() -> None:
    deep = b'{"model":"m","messages":[{"role":"user","tool_calls":[{"function":{"name":"f","arguments":'
    with pytest.raises(InvalidJson):
        ollama.read_request(deep + b'{"a":' * 400 + b"1" + b"}" * 402 + b"]}]}", TERMS, Limits())
