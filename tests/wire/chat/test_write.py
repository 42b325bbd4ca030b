from __future__ import annotations

from typing import Any

import openai
import orjson
import pytest

from app.core.errors import ServerFault
from app.core.events import Event, Fault, Finish, Reasoning, Start, Text, ToolCall, Usage
from app.core.money import Tokens
from app.core.request import Request
from app.wire import chat
from tests.contracts.test_chat_wire import client
from tests.wire.chat_cases import ask, datas, served, written

ROLE = {"role": "assistant", "content": "", "refusal": None}
USAGE = Usage(Tokens(3, 2), cost_nano=5_000)


def start(dialect: str = "ollama", **more: Any) -> Start:
    return Start("chatcmpl-1", "m", 1_763_600_000, dialect, **more)


def asked(**fields: Any) -> Request:
    return ask(stream=True, **fields)


def stream(*events: Event, first: Start | None = None, **fields: Any) -> list[Any]:
    return list(datas(written([first or start(), *events], asked(**fields))))


def deltas(*events: Event, **fields: Any) -> list[Any]:
    """The deltas between the role and the finish."""
    found = [item["choices"][0]["delta"] for item in stream(*events, Finish("stop"), **fields)[:-1]]
    assert found[0] == ROLE and found[-1] == {}
    return found[1:-1]


def test_a_stream_as_openai_sends_it() -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_763_600_000, "model": "m"}

    def chunk(delta: Any, finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    assert stream(Text("Hi"), Finish("stop"), USAGE) == [
        chunk(ROLE),
        chunk({"content": "Hi"}),
        chunk({}, "stop"),
        "[DONE]",
    ]


def test_usage_comes_in_a_chunk_of_its_own_where_it_was_asked_for() -> None:
    options = {"include_usage": True}
    *chunks, last, done = stream(Text("Hi"), Finish("stop"), USAGE, stream_options=options)
    assert done == "[DONE]"
    assert all(item["usage"] is None for item in chunks)
    assert last["choices"] == [] and last["usage"]["total_tokens"] == 5


def test_the_finish_waits_for_the_usage_that_completes_it() -> None:
    writer = chat.writer(asked())
    writer.write(start(served=served()))
    writer.write(Text("Hi"))
    assert writer.write(Finish("stop")) == b""
    (last,) = datas(writer.write(USAGE))
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["tierway"]["cost_usd"] == 5e-06
    assert writer.end() == b"data: [DONE]\n\n"


@pytest.mark.parametrize("usage", [True, False])
def test_the_last_chunk_alone_says_who_answered(usage: bool) -> None:
    events: list[Event] = [Text("a"), Text("b", 1), Finish("stop"), Finish("stop", 1), USAGE]
    first = start(served=served(session="s"))
    *others, last, _ = stream(*events, first=first, n=2, stream_options={"include_usage": usage})
    assert last["tierway"]["model"] == "up/m" and last["tierway"]["session"] == "s"
    assert not any("tierway" in item for item in others)
    assert bool(last["choices"]) is not usage


def test_without_usage_the_stream_still_closes() -> None:
    *_, last, done = stream(Finish("length"), first=start(served=served()), stream_options={"include_usage": True})
    assert last["choices"][0]["finish_reason"] == "length" and last["tierway"]["cost_usd"] is None
    assert done == "[DONE]"


def test_a_fault_ends_the_stream_without_done() -> None:
    """Clients take [DONE] for success."""
    before: list[list[Event]] = [[], [start(), Text("Hi")], [start(), Text("Hi"), Finish("stop")]]
    for events in before:
        *_, last = datas(written([*events, Fault(ServerFault("broke", param="x"))], asked()))
        assert last == {
            "error": {"message": "broke", "type": "upstream_error", "param": "x", "code": "upstream_failed"}
        }


def test_the_official_client_raises_on_a_fault() -> None:
    body = written([start(), Text("Hi"), Fault(ServerFault("broke"))], asked())
    with client(body, "text/event-stream") as sdk:
        chunks = sdk.chat.completions.create(model="auto", messages=[{"role": "user", "content": "x"}], stream=True)
        with pytest.raises(openai.APIError, match="broke"):
            list(chunks)


def test_the_role_goes_out_for_every_choice_in_order() -> None:
    found = stream(Text("b", 1), Text("a", 0), Finish("stop", 1), Finish("stop", 0), n=2)
    assert [(item["choices"][0]["index"], item["choices"][0]["delta"]) for item in found[:4]] == [
        (0, ROLE),
        (1, ROLE),
        (1, {"content": "b"}),
        (0, {"content": "a"}),
    ]


def test_pieces_of_every_kind() -> None:
    assert deltas(
        Reasoning("hm"),
        Text("no", refusal=True),
        ToolCall(0, "", "1", "f"),
        ToolCall(0, "{}"),
        ToolCall(1, "ls", "2", "g", custom=True),
        ToolCall(1, " -l", custom=True),
        Text(""),
    ) == [
        {"reasoning_content": "hm"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {"tool_calls": [{"index": 1, "id": "2", "type": "custom", "custom": {"name": "g", "input": "ls"}}]},
        {"tool_calls": [{"index": 1, "custom": {"input": " -l"}}]},
    ]


def test_signed_thinking_goes_out_whole_before_the_finish() -> None:
    """The client must be able to send it back unchanged."""
    events: list[Event] = [
        Reasoning("a"),
        Reasoning("b"),
        Reasoning("", signature="s"),
        Reasoning("", redacted="d"),
        Text("x"),
    ]
    assert deltas(*events, Reasoning("c", signature="t")) == [
        {"reasoning_content": "a"},
        {"reasoning_content": "b"},
        {"content": "x"},
        {"reasoning_content": "c"},
        {
            "thinking_blocks": [
                {"type": "thinking", "thinking": "ab", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
                {"type": "thinking", "thinking": "c", "signature": "t"},
            ]
        },
    ]


def test_lists_of_unknown_fields_come_together_once() -> None:
    """Official clients refuse a second list of the same name."""
    events = [Text("a", extra={"annotations": [1]}), Text("", extra={"annotations": [2], "audio": {"id": "x"}})]
    assert deltas(*events) == [
        {"content": "a"},
        {"audio": {"id": "x"}},
        {"annotations": [1, 2]},
    ]
    assert deltas(Text("", extra={"annotations": [1]})) == [{"annotations": [1]}]


def test_logprobs_ride_on_their_piece() -> None:
    logprobs = {"content": [{"token": "a"}], "refusal": None}
    found = stream(Text("a", logprobs=logprobs), Text("", logprobs=logprobs), Finish("stop"))
    assert [item["choices"][0]["logprobs"] for item in found[1:3]] == [logprobs, logprobs]


def test_a_legacy_caller_gets_a_function_call() -> None:
    events: list[Event] = [
        ToolCall(0, "", "1", "f"),
        ToolCall(0, "{}"),
        ToolCall(1, "{}", "2", "f"),
        Finish("tool_calls"),
    ]
    found = [item["choices"][0] for item in stream(*events, functions=[{"name": "f"}])[:-1]]
    assert [choice["delta"] for choice in found[1:-1]] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
    ]
    assert found[-1]["finish_reason"] == "function_call"


RAW = b'{"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"Hi"}}],"odd":1}'


def test_bytes_of_this_dialect_are_passed_on() -> None:
    body = written([start("chat"), Text("Hi", raw=RAW), Finish("stop", extra={"stop_reason": 5})], asked())
    assert b"data: " + RAW + b"\n\n" in body
    *_, last, _ = datas(body)
    assert last["choices"][0]["stop_reason"] == 5


@pytest.mark.parametrize("first", [start("ollama"), start("chat", served=served(simulated=True))])
def test_bytes_of_another_dialect_or_a_simulation_are_not(first: Start) -> None:
    found = stream(Text("Hi", raw=RAW), Finish("stop", 0, "odd", {"stop_reason": 5}), USAGE, first=first)
    assert found[1]["choices"][0]["delta"] == {"content": "Hi"} and "odd" not in found[1]
    assert found[2]["choices"][0]["native_finish_reason"] == "odd"
    if first.served is not None:
        assert {item["system_fingerprint"] for item in found[:-1]} == {"simulated"}


def test_an_empty_stream_is_only_closed() -> None:
    assert written([], asked()) == b"data: [DONE]\n\n"
    assert written([USAGE], asked()) == b"data: [DONE]\n\n"


def test_a_chunk_is_one_line_whatever_the_text() -> None:
    text = 'a\n\nb\r"c"\u2028🦙\x00'
    found = stream(Text(text), Finish("stop"))
    assert found[1]["choices"][0]["delta"]["content"] == text
    assert orjson.loads(orjson.dumps(found))
