from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from app.core.messages import Format, Message, TextPart, Tool, ToolChoice
from app.core.request import Request
from app.wire.chat.outgoing import write_request
from tests.wire.chat_cases import TERMS, TOOL, ask, card


def sent(request: Request, **quirks: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(write_request(request, card("m", **quirks)).body)
    return body


def ignored(request: Request, **quirks: Any) -> set[str]:
    return set(write_request(request, card("m", **quirks)).ignored)


def test_the_callers_body_goes_on_under_the_upstreams_name() -> None:
    request = ask(top_k=3, seed=7, user=None, chat_template_kwargs={"a": [1]})
    assert sent(request) == {
        "model": "m",
        "messages": request.body["messages"],
        "stream": False,
        "top_k": 3,
        "seed": 7,
        "chat_template_kwargs": {"a": [1]},
    }
    assert request.body["model"] == "auto", "the caller's body is never changed"
    assert ignored(request) == set()


def test_usage_is_always_asked_for() -> None:
    """Without it nothing could be accounted, whether or not the client wants to see it."""
    assert sent(ask(stream=True))["stream_options"] == {"include_usage": True}
    options = {"include_usage": False, "include_obfuscation": False}
    assert sent(ask(stream=True, stream_options=options))["stream_options"] == {**options, "include_usage": True}
    assert "stream_options" not in sent(ask(stream_options={"include_usage": True}))
    assert "stream_options" not in sent(ask(stream=True, stream_options=options), no_stream_options=True)
    assert ignored(ask(stream=True), allow={"temperature"}) == set()
    assert "stream_options" not in sent(ask(stream=True), allow={"temperature"})


@pytest.mark.parametrize(
    ("fields", "quirks", "written"),
    [
        ({"max_tokens": 5}, {}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {}, {"max_completion_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 4}, {}, {"max_completion_tokens": 4}),
        ({"max_completion_tokens": 5}, {"max_tokens_field": "max_tokens"}, {"max_tokens": 5}),
        ({"max_tokens": 5}, {"max_tokens_field": "max_completion_tokens"}, {"max_completion_tokens": 5}),
        ({}, {"max_tokens_field": "max_tokens"}, {}),
    ],
)
def test_the_token_limit_has_the_name_the_server_knows(
    fields: dict[str, Any], quirks: dict[str, Any], written: dict[str, int]
) -> None:
    body = sent(ask(**fields), **quirks)
    assert {name: body[name] for name in body if name.startswith("max_")} == written


def test_a_limit_lowered_on_the_way_is_the_one_sent() -> None:
    assert sent(replace(ask(max_tokens=50), max_tokens=9))["max_tokens"] == 9
    assert sent(replace(ask(max_completion_tokens=50), max_tokens=9))["max_completion_tokens"] == 9
    lowered = sent(replace(ask(max_tokens=50, max_completion_tokens=40), max_tokens=9))
    assert {name: lowered[name] for name in lowered if name.startswith("max_")} == {"max_completion_tokens": 9}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-6-luna", "max_completion_tokens"),
        ("openai/o4-mini", "max_completion_tokens"),
        ("gpt-oss-120b", "max_tokens"),
        ("deepseek-chat", "max_tokens"),
        ("olmo-3", "max_tokens"),
    ],
)
def test_a_limit_set_on_the_way_is_called_what_the_server_minds(model: str, name: str) -> None:
    """One that the server does not know is refused by some, and passed over by others: the answer then costs more than
    was held for it."""
    body = orjson.loads(write_request(replace(ask(), max_tokens=9), card(model)).body)
    assert {each: body[each] for each in body if each.startswith("max_")} == {name: 9}


def test_what_a_server_cannot_take_is_left_out_by_name() -> None:
    request = ask(seed=1, user="u", temperature=0, top_k=2)
    assert {"seed", "top_k"}.isdisjoint(sent(request, drop={"seed", "top_k"}))
    assert ignored(request, drop={"seed", "top_k", "logit_bias"}) == {"seed", "top_k"}
    assert set(sent(request, allow=["temperature"])) == {"model", "messages", "stream", "temperature"}
    assert ignored(request, allow=["temperature"]) == {"seed", "user", "top_k"}


def test_fields_of_the_configuration_are_added() -> None:
    assert sent(ask(), extra={"priority": 3})["priority"] == 3


def test_the_developer_role_is_renamed_where_unknown() -> None:
    request = ask(messages=[{"role": "developer", "content": "d"}, {"role": "user", "content": "u"}])
    assert [message["role"] for message in sent(request)["messages"]] == ["developer", "user"]
    assert [message["role"] for message in sent(request, developer_role=False)["messages"]] == ["system", "user"]


BLOCKS = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}]
TURNS = [
    {"role": "user", "content": "u"},
    {"role": "assistant", "content": "a", "reasoning_content": "hm", "thinking_blocks": BLOCKS, "odd": 1},
    {"role": "assistant", "content": "b", "reasoning": "hm"},
    {"role": "assistant", "content": "c", "thinking_blocks": BLOCKS},
    {"role": "user", "content": "v"},
]


def test_earlier_thinking_goes_under_the_name_the_server_reads() -> None:
    request = ask(messages=TURNS)
    turns = sent(request, reasoning_field="reasoning")["messages"]
    assert turns[1] == {"role": "assistant", "content": "a", "reasoning": "hm", "odd": 1}
    assert [turn["reasoning"] for turn in turns[1:4]] == ["hm", "hm", "hm"]
    assert ignored(request, reasoning_field="reasoning") == {"thinking_blocks"}


def test_earlier_thinking_is_left_out_with_a_word_where_nobody_reads_it() -> None:
    turns = sent(ask(messages=TURNS))["messages"]
    assert all(set(turn) <= {"role", "content", "odd"} for turn in turns)
    assert ignored(ask(messages=TURNS)) == {"reasoning_content", "thinking_blocks"}


def test_a_server_that_takes_extensions_gets_them() -> None:
    request = ask(messages=TURNS)
    assert sent(request, keep_extensions=True)["messages"] == TURNS
    assert ignored(request, keep_extensions=True) == set()
    turns = sent(request, keep_extensions=True, reasoning_field="reasoning_content")["messages"]
    assert turns[1]["thinking_blocks"] == BLOCKS and turns[1]["reasoning_content"] == "hm"


def test_cache_markers_are_taken_off_everywhere() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    point = {"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}
    parts = [{"type": "text", "text": "a", **mark}, {"type": "text", "text": "b", **point}]
    function = {**TOOL["function"], **mark}
    request = ask(
        messages=[{"role": "user", "content": parts}, {"role": "user", "content": "x", **mark}],
        tools=[{**TOOL, **mark}, {"type": "function", "function": function}, TOOL],
        **mark,
    )
    assert b"cache" not in write_request(request, card("m")).body
    assert ignored(request) == {"cache_control", "prompt_cache_breakpoint"}
    assert sent(request, keep_extensions=True)["messages"] == request.body["messages"]


def test_a_legacy_caller_is_served_with_tools() -> None:
    request = ask(
        functions=[{"name": "f", "parameters": {"type": "object"}}],
        function_call={"name": "f"},
        seed=3,
        messages=[
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "42"},
        ],
    )
    body = sent(request)
    assert "functions" not in body and "function_call" not in body
    assert body["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["parallel_tool_calls"] is False
    assert body["seed"] == 3
    call, result = body["messages"][1:]
    assert call["tool_calls"][0]["id"] == result["tool_call_id"]
    assert ignored(request, drop={"parallel_tool_calls"}) == set(), "only we had added it"


def test_no_tools_are_sent_as_nothing() -> None:
    assert set(sent(ask(tools=[], tool_choice="auto", parallel_tool_calls=True))) == {"model", "messages", "stream"}
    assert "functions" not in sent(ask(functions=[]))


def test_a_legacy_history_without_functions_is_translated_too() -> None:
    turns = [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "user", "content": "u"},
    ]
    assert "function_call" not in sent(ask(messages=turns))["messages"][0]
    nulls = [{"role": "assistant", "content": "a", "function_call": None, "odd": 1}]
    assert sent(ask(messages=nulls))["messages"] == nulls


def test_another_dialect_is_written_from_the_neutral_request() -> None:
    request = Request(
        model="x",
        messages=(Message("user", (TextPart("u"),)),),
        terms=TERMS,
        dialect="messages",
        body={"max_tokens": 9},
        stream=True,
        n=2,
        max_tokens=9,
        stop=("a",),
        tools=(Tool("f"),),
        tool_choice=ToolChoice("required"),
        parallel_tool_calls=False,
        format=Format("json_object"),
        effort="low",
        logprobs=2,
        hints={"temperature": 0.5},
        extra={"container": "c"},
    )
    assert sent(request) == {
        "model": "m",
        "messages": [{"role": "user", "content": "u"}],
        "n": 2,
        "stop": ["a"],
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}},
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
        "reasoning_effort": "low",
        "logprobs": True,
        "top_logprobs": 2,
        "temperature": 0.5,
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert ignored(request) == {"container"}
    assert ignored(request, drop={"temperature"}) == {"container", "temperature"}


def test_little_of_another_dialect_is_written_as_little() -> None:
    request = Request("x", (Message("user", (TextPart("u"),)),), TERMS, "messages", {})
    assert sent(request) == {"model": "m", "messages": [{"role": "user", "content": "u"}], "stream": False}
