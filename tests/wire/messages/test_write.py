"""Answers as Anthropic's API gives them: one block after the other, nothing lost, whatever dialect they came from."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Busy
from app.core.events import (
    Answer,
    Choice,
    Event,
    Fault,
    Finish,
    Reasoning,
    Start,
    Text,
    Thought,
    ToolCall,
    Usage,
    fold,
)
from app.core.money import Tokens
from app.wire.messages.write import write_reply, writer
from tests.wire.messages_cases import ask, read, whole

START = Start("chatcmpl-1", "m", 1, "chat")
USAGE = Usage(Tokens(100, 20, cache_read=30, cache_write=50, cache_write_1h=10, reasoning=5))


def stream(*events: Event) -> bytes:
    out = writer(ask())
    return b"".join(out.write(event) for event in events) + out.end()


def data(written: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(frame.split(b"data: ", 1)[1]) for frame in written.split(b"\n\n") if frame]


def blocks(written: bytes) -> list[str]:
    return [each["content_block"]["type"] for each in data(written) if each["type"] == "content_block_start"]


def test_the_events_of_a_plain_answer() -> None:
    written = stream(START, Text("Hi"), Text(" there"), Finish("stop"), USAGE)
    kinds = [each["type"] for each in data(written)]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert data(written)[0]["message"]["id"] == "msg_chatcmpl-1"
    assert written.startswith(b"event: message_start\ndata: {")
    last = data(written)[-2]
    assert last["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert last["usage"] == {
        "input_tokens": 20,
        "cache_creation_input_tokens": 50,
        "cache_read_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 10},
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 5},
    }


def test_mixed_pieces_of_calls_are_put_in_order() -> None:
    """OpenAI's wire may mix them; here a block that was left cannot be taken up again."""
    written = stream(
        START,
        Text("a"),
        ToolCall(0, "", "x", "f"),
        ToolCall(1, '{"b"', "y", "g"),
        ToolCall(0, '{"a":1'),
        Text("late"),
        ToolCall(1, ":2}"),
        ToolCall(0, "}"),
        Reasoning("later"),
        Finish("tool_calls"),
        USAGE,
    )
    assert blocks(written) == ["text", "tool_use", "tool_use", "text", "thinking"]
    (choice,) = fold(read(written)).choices
    assert [(call.id, call.arguments) for call in choice.calls] == [("x", '{"a":1}'), ("y", '{"b":2}')]
    assert (choice.text, choice.reasoning, choice.finish) == ("alate", "later", "tool_calls")


def test_the_first_call_is_not_held_back() -> None:
    """A client that shows a file being written sees it grow."""
    out = writer(ask())
    out.write(START)
    out.write(ToolCall(0, "", "x", "f"))
    assert data(out.write(ToolCall(0, '{"text'))) == [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"text'}}
    ]


def test_thinking_keeps_its_blocks_and_signatures() -> None:
    written = stream(
        START, Reasoning("a"), Reasoning("", signature="s"), Reasoning("", redacted="r"), Reasoning("b"), Text("c"),
        Finish("stop"),
    )  # fmt: skip
    assert blocks(written) == ["thinking", "redacted_thinking", "thinking", "text"]
    (choice,) = fold(read(written)).choices
    assert choice.thoughts == [Thought("a", "s"), Thought("", redacted="r"), Thought("b")]


def test_only_the_first_choice_is_written() -> None:
    events: list[Event] = [START, Text("a"), Text("b", choice=1), Finish("stop"), Finish("length", choice=1), USAGE]
    (choice,) = fold(read(stream(*events))).choices
    assert (choice.text, choice.finish) == ("a", "stop")


def test_a_fault_ends_the_stream_without_an_end() -> None:
    written = stream(START, Text("a"), Fault(Busy("no more")))
    assert data(written)[-1] == {"type": "error", "error": {"type": "overloaded_error", "message": "no more"}}
    assert b"message_stop" not in written


def test_an_answer_without_usage_still_ends() -> None:
    assert data(stream(START, Finish("length")))[-2]["delta"]["stop_reason"] == "max_tokens"
    assert stream() == b""


@pytest.mark.parametrize(
    ("finish", "reason", "sequence"),
    [
        (Finish("stop"), "end_turn", None),
        (Finish("stop", detail="pause_turn"), "pause_turn", None),
        (Finish("stop", detail="something"), "end_turn", None),
        (Finish("stop", extra={"stop_reason": "END"}), "stop_sequence", "END"),
        (Finish("stop", extra={"stop_reason": 7}), "end_turn", None),
        (Finish("length", detail="model_context_window_exceeded"), "model_context_window_exceeded", None),
        (Finish("tool_calls"), "tool_use", None),
    ],
)
def test_stop_reasons(finish: Finish, reason: str, sequence: str | None) -> None:
    assert data(stream(START, finish))[-2]["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


def test_a_refusal_is_told_in_the_details() -> None:
    events: list[Event] = [START, Text("No", refusal=True), Text(" way", refusal=True), Finish("content_filter"), USAGE]
    (choice,) = fold(read(stream(*events))).choices
    assert (choice.refusal, choice.text, choice.finish) == ("No way", None, "content_filter")
    again = whole(write_reply(fold(events), ask()))
    assert fold(again).choices[0].refusal == "No way"


def test_a_reply_in_this_dialect_keeps_its_body() -> None:
    body = {"id": "msg_1", "mystery": 1}
    answer = Answer(Start("msg_1", "m", 1, "messages", body=body), [Choice(0)], None)
    assert orjson.loads(write_reply(answer, ask())) == body


def test_an_empty_answer_is_a_message() -> None:
    made = orjson.loads(write_reply(Answer(START, [], None), ask()))
    assert (made["content"], made["stop_reason"], made["usage"]["output_tokens"]) == ([], "end_turn", 0)


@pytest.mark.parametrize("arguments", ['{"a": 1', "[1]"])
def test_arguments_that_are_no_object_are_shown_as_they_are(arguments: str) -> None:
    """A small model's slip, or a cut at max_tokens, must not turn the whole answer into an error."""
    events: list[Event] = [START, ToolCall(0, arguments, "x", "f"), Finish("length"), USAGE]
    made = orjson.loads(write_reply(fold(events), ask()))
    assert made["content"][0]["input"] == {"invalid_json": arguments}


names = st.sampled_from(["x", "y", "z"])
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
thoughts = st.lists(
    st.builds(lambda text, sign: [Reasoning(text), Reasoning("", signature=sign)], words, st.text("ab", min_size=1))
    | st.builds(lambda blob: [Reasoning("", redacted=blob)], words),
    max_size=2,
)
calls = st.lists(st.dictionaries(words, words, max_size=2), max_size=3)


@settings(max_examples=80, deadline=None)
@given(thoughts, st.lists(words, max_size=3), calls, st.randoms())
def test_what_is_written_is_read_back_the_same(
    thought: list[list[Event]], texts: list[str], arguments: list[dict[str, str]], random: Any
) -> None:
    """Streamed and whole, in order or mixed: the same answer."""
    pieces: list[list[Event]] = []
    for index, given_ in enumerate(arguments):
        whole_ = orjson.dumps(given_).decode()
        pieces.append([ToolCall(index, whole_[:3], f"id{index}", "f"), ToolCall(index, whole_[3:])])
    mixed: list[Event] = [piece[0] for piece in pieces]
    rest = [piece[1] for piece in pieces]
    random.shuffle(rest)
    finish = Finish("tool_calls" if arguments else "stop")
    events: list[Event] = [START, *(e for block in thought for e in block), *map(Text, texts), *mixed, *rest]
    events += [finish, USAGE]
    wanted = fold(events)
    streamed, replied = fold(read(stream(*events))), fold(whole(write_reply(wanted, ask())))
    for made in (streamed, replied):
        assert made.choices[0].calls == wanted.choices[0].calls
        assert made.choices[0].thoughts == wanted.choices[0].thoughts
        assert (made.choices[0].text or "") == (wanted.choices[0].text or "")
        assert made.choices[0].finish == wanted.choices[0].finish
        assert made.usage is not None and made.usage.tokens == USAGE.tokens
