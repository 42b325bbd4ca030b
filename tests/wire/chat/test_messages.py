from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import InvalidValue
from app.core.messages import (
    MediaPart,
    Message,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolResultPart,
    ToolUsePart,
)
from app.wire.chat.messages import read_messages


def read(*messages: Any) -> tuple[Message, ...]:
    return read_messages({"messages": list(messages)}, 10)


def one(**fields: Any) -> Message:
    return read(fields)[0]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_text_as_a_string_or_as_parts_is_the_same(role: str) -> None:
    plain = one(role=role, content="hi", name="ann")
    assert plain == one(role=role, content=[{"type": "text", "text": "hi"}], name="ann")
    assert plain == Message(role, (TextPart("hi"),), "ann")


def test_an_assistant_turn_keeps_thinking_text_refusal_and_calls_in_order() -> None:
    message = one(
        role="assistant",
        content=[{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
        refusal="c",
        reasoning_content="hm",
        tool_calls=[
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "2", "type": "custom", "custom": {"name": "g", "input": "x"}},
        ],
    )
    assert message.parts == (
        ThinkingPart("hm"),
        TextPart("a"),
        RefusalPart("b"),
        RefusalPart("c"),
        ToolUsePart("1", "f", "{}"),
        ToolUsePart("2", "g", "x", custom=True),
    )


@pytest.mark.parametrize("content", [{}, {"content": None}])
def test_an_assistant_turn_may_be_calls_alone(content: dict[str, Any]) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert one(role="assistant", tool_calls=[call], **content).parts == (ToolUsePart("1", "f", ""),)


def test_signed_thinking_comes_back_unchanged() -> None:
    """Claude refuses a tool result whose thinking was altered."""
    blocks = [
        {"type": "thinking", "thinking": "t", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "thinking", "thinking": "", "signature": "only"},
    ]
    assert one(role="assistant", content="a", reasoning_content="t", thinking_blocks=blocks).parts == (
        ThinkingPart("t", "s"),
        ThinkingPart("", redacted="d"),
        ThinkingPart("", "only"),
        TextPart("a"),
    )


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_both_names_of_reasoning_are_understood(field: str) -> None:
    assert one(role="assistant", content="a", **{field: "hm"}).parts == (ThinkingPart("hm"), TextPart("a"))
    assert one(role="assistant", content="a", **{field: ""}).parts == (TextPart("a"),)


def test_a_tool_result_may_be_parts_and_carry_a_cache_marker() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a"}}
    message = one(role="tool", tool_call_id="1", content=[{"type": "text", "text": "a"}, image])
    assert message.parts == (ToolResultPart("1", (TextPart("a"), MediaPart("image", url="https://x.example/a"))),)
    marked = one(role="tool", tool_call_id="1", content="a", cache_control={"type": "ephemeral", "ttl": "1h"})
    assert marked.parts == (ToolResultPart("1", (TextPart("a", "1h"),), cache="1h"),)


def test_a_marker_on_a_message_marks_its_last_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    message = one(role="user", content=parts, cache_control={"type": "ephemeral"})
    assert message.parts == (TextPart("a"), TextPart("b", "5m"))


def test_legacy_functions_become_tools_and_results_find_their_call() -> None:
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    messages = read({"role": "user", "content": "go"}, call, {"role": "function", "name": "f", "content": "42"})
    assert messages[1].parts == (ToolUsePart("call_1", "f", "{}"),)
    assert messages[2] == Message("tool", (ToolResultPart("call_1", (TextPart("42"),)),), "f")


def test_a_legacy_result_without_its_call_still_has_an_id() -> None:
    messages = read({"role": "user", "content": "go"}, {"role": "function", "name": "f", "content": None})
    assert messages[1].parts == (ToolResultPart("call_f", ()),)


CALL: dict[str, Any] = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (3, "messages[0]"),
        ({}, "messages[0].role"),
        ({"role": "boss", "content": "x"}, "messages[0].role"),
        ({"role": {}, "content": "x"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": None}, "messages[0].content"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": "x", "name": 5}, "messages[0].name"),
        ({"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}, "messages[0].content[0].type"),
        ({"role": "system", "content": [{"type": "image_url"}]}, "messages[0].content[0].type"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "tool", "tool_call_id": "", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "tool", "tool_call_id": "1", "content": None}, "messages[0].content"),
        ({"role": "function", "content": "x"}, "messages[0].name"),
        ({"role": "assistant", "tool_calls": {}}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": [1]}, "messages[0].tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{**CALL, "id": None}]}, "messages[0].tool_calls[0].id"),
        ({"role": "assistant", "tool_calls": [{**CALL, "type": "x"}]}, "messages[0].tool_calls[0].type"),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": ""}}]},
            "messages[0].tool_calls[0].custom.name",
        ),
        ({"role": "assistant", "function_call": "f"}, "messages[0].function_call"),
        ({"role": "assistant", "content": "x", "refusal": 1}, "messages[0].refusal"),
        ({"role": "assistant", "content": "x", "audio": 1}, "messages[0].audio"),
        ({"role": "assistant", "content": "x", "reasoning": {}}, "messages[0].reasoning"),
        ({"role": "assistant", "content": "x", "thinking_blocks": [{}]}, "messages[0].thinking_blocks[0].type"),
        (
            {"role": "assistant", "content": "x", "thinking_blocks": [{"type": "thinking"}]},
            "messages[0].thinking_blocks[0].thinking",
        ),
    ],
)
def test_a_wrong_message_is_named(message: Any, param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read(message)
    assert caught.value.param == param


@pytest.mark.parametrize("messages", [None, {}, "x", [], [{"role": "user", "content": "x"}] * 11])
def test_there_must_be_some_messages_and_not_too_many(messages: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_messages({"messages": messages}, 10)
    assert caught.value.param == "messages"
