from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import BadReply, ServerFault
from app.core.events import Event, Finish, Piece, Reasoning, Text, ToolCall
from app.wire.chat.choice import FINISH, ChoiceReader
from tests.wire.chat_cases import TOOL, ask


def read(fields: Any, whole: bool = False, choice: dict[str, Any] | None = None, **asked: Any) -> list[Piece]:
    return ChoiceReader(0, ask(**asked), whole=whole).read(choice or {}, fields)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("fields", "events"),
    [
        (None, []),
        ({}, []),
        ({"role": "assistant", "content": ""}, []),
        ({"content": "a"}, [Text("a")]),
        ({"reasoning": "r", "content": "a"}, [Reasoning("r"), Text("a")]),
        ({"reasoning_content": "r", "reasoning": "r"}, [Reasoning("r")]),
        ({"refusal": "no"}, [Text("no", refusal=True)]),
        ({"content": "a", "refusal": "no"}, [Text("a"), Text("no", refusal=True)]),
        ({"annotations": [{"a": 1}], "audio": None, "x": []}, [Text("", extra={"annotations": [{"a": 1}]})]),
        ({"content": "a", "audio": {"id": "1"}}, [Text("a", extra={"audio": {"id": "1"}})]),
    ],
)
def test_deltas_and_messages_read_alike(whole: bool, fields: Any, events: list[Event]) -> None:
    assert read(fields, whole) == events


def test_logprobs_ride_on_the_text_they_are_of() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -1.0}], "refusal": None}
    assert read({"content": "a"}, choice={"logprobs": logprobs}) == [Text("a", logprobs=logprobs)]
    assert read({"refusal": "a"}, choice={"logprobs": logprobs}) == [Text("a", refusal=True, logprobs=logprobs)]
    assert read({}, choice={"logprobs": logprobs}) == [Text("", logprobs=logprobs)]
    assert read({"content": "a"}, choice={"logprobs": {"content": []}}) == [Text("a")]


THINK: dict[str, Any] = {"type": "thinking", "thinking": "t", "signature": "s"}
HIDDEN = {"type": "redacted_thinking", "data": "d"}


def test_a_whole_message_has_its_thinking_blocks_exactly() -> None:
    fields = {"reasoning_content": "t", "thinking_blocks": [THINK, HIDDEN, {"type": "thinking", "thinking": "u"}]}
    assert read(fields, whole=True) == [Reasoning("t", 0, "s"), Reasoning("", 0, None, "d"), Reasoning("u")]


def test_in_a_stream_blocks_sign_the_text_that_came_before() -> None:
    assert read({"reasoning_content": "t"}) == [Reasoning("t")]
    assert read({"thinking_blocks": [THINK, HIDDEN]}) == [Reasoning("", 0, "s"), Reasoning("", 0, None, "d")]
    assert read({"thinking_blocks": [THINK, THINK]}) == [], "nobody can say which text each signs"


@pytest.mark.parametrize(("said", "reason"), sorted(FINISH.items()))
def test_finish_reasons_are_openais(said: str, reason: str) -> None:
    fields = {"function_call": {"name": "f", "arguments": "{}"}} if reason == "tool_calls" else {"content": "a"}
    assert read(fields, choice={"finish_reason": said})[-1] == Finish(reason)


@pytest.mark.parametrize(
    ("said", "asked", "finish"),
    [
        ("stop", {}, Finish("tool_calls")),
        ("stop", {"tool_choice": "required"}, Finish("tool_calls")),
        ("stop", {"tool_choice": {"type": "function", "function": {"name": "weather"}}}, Finish("stop")),
        ("eos", {}, Finish("tool_calls", detail="eos")),
        ("length", {}, Finish("length")),
    ],
)
def test_a_stop_after_calls_means_that_calls_are_to_be_made(said: str, asked: dict[str, Any], finish: Finish) -> None:
    call = {"index": 0, "id": "1", "function": {"name": "weather", "arguments": ""}}
    events = read({"tool_calls": [call]}, choice={"finish_reason": said}, tools=[TOOL], **asked)
    assert events == [ToolCall(0, "", "1", "weather"), ToolCall(0, "{}"), finish]


def test_tool_calls_without_a_call_is_a_stop() -> None:
    """A client would wait for ever for a call to make."""
    assert read({"content": "a"}, choice={"finish_reason": "tool_calls"})[-1] == Finish("stop")


def test_an_unknown_word_is_kept() -> None:
    choice = {"finish_reason": "repetition", "stop_reason": 5, "token_ids": None}
    assert read({}, choice=choice) == [Finish("stop", 0, "repetition", {"stop_reason": 5})]


@pytest.mark.parametrize("said", ["abort", "error", "network_error"])
def test_an_answer_that_was_given_up_never_looks_whole(said: str) -> None:
    with pytest.raises(ServerFault):
        read({"content": "a"}, choice={"finish_reason": said})


def test_the_first_finish_counts() -> None:
    reader = ChoiceReader(0, ask())
    assert reader.read({"finish_reason": "length"}, {}) == [Finish("length")]
    assert reader.read({"finish_reason": "stop"}, {}) == []


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ("x", {}),
        ([], {}),
        ({"content": 5}, {}),
        ({"content": ["a"]}, {}),
        ({"refusal": {}}, {}),
        ({"reasoning": {}}, {}),
        ({"tool_calls": {}}, {}),
        ({"tool_calls": [1]}, {}),
        ({"function_call": "f"}, {}),
        ({"thinking_blocks": {}}, {}),
        ({"thinking_blocks": [1]}, {}),
        ({"thinking_blocks": [{"thinking": 1}]}, {}),
        ({}, {"logprobs": 1}),
        ({}, {"logprobs": {"content": "x"}}),
        ({}, {"finish_reason": 1}),
        ({}, {"finish_reason": ["stop"]}),
    ],
)
def test_wrong_types_are_a_bad_reply(fields: Any, choice: dict[str, Any]) -> None:
    with pytest.raises(BadReply):
        read(fields, choice=choice)
