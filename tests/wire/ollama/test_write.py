from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.core.errors import InternalError, ServerFault
from app.core.events import Event, Fault, Finish, Reasoning, Start, Text, ToolCall, Usage, fold
from app.core.money import Tokens
from app.wire import ollama
from tests.wire.ollama_cases import ask

START = Start("chatcmpl-1", "rnj-1", 1_787_306_400, "ollama")
HEAD = {"model": "rnj-1", "created_at": "2026-08-21T10:00:00Z"}


def write(*events: Event) -> list[dict[str, Any]]:
    writer = ollama.writer(ask())
    sent = b"".join(writer.write(event) for event in events) + writer.end()
    return [orjson.loads(line) for line in sent.splitlines()]


def test_a_stream_is_lines_and_the_last_one_counts() -> None:
    logprobs = {"content": [{"token": "Hi", "logprob": -1}]}
    details = {"load_duration": 5, "odd": 1, "eval_count": 77}
    usage = Usage(Tokens(9, 2, 0), details=details)
    assert write(START, Reasoning("Hm"), Text("Hi", logprobs=logprobs), Text(""), Finish("length"), usage) == [
        {**HEAD, "message": {"role": "assistant", "content": "", "thinking": "Hm"}, "done": False},
        {
            **HEAD,
            "message": {"role": "assistant", "content": "Hi"},
            "done": False,
            "logprobs": logprobs["content"],
        },
        {
            **HEAD,
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "length",
            "prompt_eval_count": 9,
            "eval_count": 2,
            "load_duration": 5,
        },
    ]


def test_calls_are_whole_and_come_before_the_end() -> None:
    calls = [ToolCall(0, '{"a"', "c0", "f"), ToolCall(1, "", "c1", "g"), ToolCall(0, ":1}")]
    first, last = write(START, *calls, Finish("tool_calls"))
    assert first["message"]["tool_calls"] == [
        {"id": "c0", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}},
        {"id": "c1", "function": {"index": 1, "name": "g", "arguments": {}}},
    ]
    assert last["done_reason"] == "stop"
    assert "eval_count" not in last


def test_the_reason_of_an_upstream_of_the_same_kind_survives() -> None:
    assert write(START, Finish("stop", detail="load"))[-1]["done_reason"] == "load"


def test_a_fault_ends_the_stream() -> None:
    """A client must not take what came before for the whole answer."""
    assert write(START, Text("Hi"), Finish("stop"), Fault(ServerFault("broke")))[-1] == {"error": "broke"}


@pytest.mark.parametrize("arguments", ["{", "[1]"])
def test_arguments_that_are_no_object_cannot_be_written(arguments: str) -> None:
    with pytest.raises(InternalError):
        write(START, ToolCall(0, arguments, "c", "f"), Finish("tool_calls"))


def test_a_whole_reply() -> None:
    logprobs = {"content": [{"token": "Hi", "logprob": -1}]}
    answer = fold([START, Reasoning("Hm"), Text("Hi", logprobs=logprobs), ToolCall(0, "{}", "c", "f"), Finish("stop")])
    call = {"id": "c", "function": {"index": 0, "name": "f", "arguments": {}}}
    assert orjson.loads(ollama.write_reply(answer, ask())) == {
        **HEAD,
        "message": {"role": "assistant", "content": "Hi", "thinking": "Hm", "tool_calls": [call]},
        "done": True,
        "done_reason": "stop",
        "logprobs": logprobs["content"],
    }


def test_errors_are_a_text() -> None:
    assert orjson.loads(ollama.write_error(ServerFault("broke"))) == {"error": "broke"}
