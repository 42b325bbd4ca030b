from __future__ import annotations

from typing import Any

import pytest

from app.core.messages import (
    Format,
    MediaPart,
    Message,
    RefusalPart,
    TextPart,
    ThinkingPart,
    Tool,
    ToolChoice,
    ToolResultPart,
    ToolUsePart,
)
from app.wire.chat.build import build_choice, build_format, build_messages, build_tools
from app.wire.chat.messages import read_messages
from app.wire.chat.tools import read_choice, read_format, read_tools

PNG = MediaPart("image", "image/png", "AAAA", detail="low")
MESSAGES = (
    Message("system", (TextPart("s"),)),
    Message("developer", (TextPart("d"),)),
    Message("user", (TextPart("u"),), "ann"),
    Message("user", (TextPart("look"), PNG, MediaPart("image", url="https://x.example/a"))),
    Message("user", (TextPart("hear"), MediaPart("audio", "audio/mp3", "AA"))),
    Message(
        "user",
        (
            TextPart("read"),
            MediaPart("file", "application/pdf", "JVBE", filename="a.pdf"),
            MediaPart("file", file_id="file-1"),
        ),
    ),
    Message("assistant", (ThinkingPart("hm"), TextPart("a"), RefusalPart("no"))),
    Message("assistant", (ToolUsePart("1", "f", "{}"), ToolUsePart("2", "g", "x", custom=True))),
    Message("tool", (ToolResultPart("1", (TextPart("42"),)),)),
    Message("tool", (ToolResultPart("2", (TextPart("a"), TextPart("b"))),)),
    Message("assistant", (TextPart("done"),)),
)


def test_messages_survive_being_written_and_read() -> None:
    built = build_messages(MESSAGES)
    assert read_messages({"messages": built}, 50) == MESSAGES


def test_one_text_is_a_plain_string() -> None:
    assert build_messages(MESSAGES)[2] == {"role": "user", "content": "u", "name": "ann"}


def test_several_results_in_one_turn_become_several_messages() -> None:
    """Anthropic callers send all results of a turn, and what the user says next, together."""
    turn = Message("user", (ToolResultPart("1", (TextPart("x"),)), ToolResultPart("2", ()), TextPart("go on")))
    assert build_messages((turn,)) == [
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "tool", "tool_call_id": "2", "content": ""},
        {"role": "user", "content": "go on"},
    ]
    alone = Message("user", (ToolResultPart("1", (TextPart("x"),)),))
    assert build_messages((alone,)) == [{"role": "tool", "tool_call_id": "1", "content": "x"}]


def test_a_call_without_arguments_is_written_as_an_empty_object() -> None:
    (built,) = build_messages((Message("assistant", (ToolUsePart("1", "f", ""),)),))
    assert built["content"] is None
    assert built["tool_calls"][0]["function"]["arguments"] == "{}"


def test_an_empty_turn_is_still_a_turn() -> None:
    empty = (Message("assistant", ()), Message("user", ()))
    assert build_messages(empty) == [{"role": "assistant", "content": ""}, {"role": "user", "content": ""}]


TOOLS = (Tool("f", "d", {"type": "object"}, True), Tool("g", custom=True), Tool("h"))


def test_tools_survive_being_written_and_read() -> None:
    built = build_tools(TOOLS)
    read = read_tools({"tools": built}, 5)
    assert read[:2] == TOOLS[:2]
    assert read[2].schema == {"type": "object", "properties": {}}, "some servers demand a schema"


@pytest.mark.parametrize(
    "choice",
    [
        ToolChoice("auto"),
        ToolChoice("none"),
        ToolChoice("required"),
        ToolChoice("named", ("f",)),
        ToolChoice("named", ("g",)),
        ToolChoice("auto", ("f", "g")),
        ToolChoice("required", ("h",)),
    ],
)
def test_choices_survive_being_written_and_read(choice: ToolChoice) -> None:
    assert read_choice({"tool_choice": build_choice(choice, TOOLS)}, TOOLS) == choice


@pytest.mark.parametrize(
    ("form", "read"),
    [
        (Format("json_object"), Format("json_object")),
        (Format("json_schema", {"a": 1}, "n", True), Format("json_schema", {"a": 1}, "n", True)),
        (Format("json_schema", {"a": 1}), Format("json_schema", {"a": 1}, "answer")),
    ],
)
def test_formats_survive_being_written_and_read(form: Format, read: Any) -> None:
    assert read_format({"response_format": build_format(form)}) == read
