from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.core.errors import InternalError, InvalidValue, Throttled
from app.core.events import Answer, Event, Finish, Reasoning, Start, Text, ToolCall, Usage, fold
from app.core.money import Tokens
from app.wire import chat
from tests.wire.chat_cases import ask, card, served


def start(dialect: str = "messages", **more: Any) -> Start:
    return Start("msg_1", "m", 1_763_600_000, dialect, **more)


def written(*events: Event, first: Start | None = None, **asked: Any) -> dict[str, Any]:
    answer = fold([first or start(), *events])
    body: dict[str, Any] = orjson.loads(chat.write_reply(answer, ask(**asked)))
    return body


def test_an_answer_of_another_dialect_is_built_as_openai_would() -> None:
    thoughts = [Reasoning("hm"), Reasoning("", signature="s"), Reasoning("", redacted="d"), Reasoning("unsigned")]
    calls = [ToolCall(0, '{"x":1}', "1", "f"), ToolCall(1, "ls", "2", "g", custom=True), ToolCall(2, "", "3", "h")]
    usage = Usage(Tokens(30, 20, 10, 5, reasoning=7))
    assert written(*thoughts, *calls, Finish("tool_calls"), usage) == {
        "id": "chatcmpl-msg_1",
        "object": "chat.completion",
        "created": 1_763_600_000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "reasoning_content": "hmunsigned",
                    "thinking_blocks": [
                        {"type": "thinking", "thinking": "hm", "signature": "s"},
                        {"type": "redacted_thinking", "data": "d"},
                    ],
                    "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                        {"id": "2", "type": "custom", "custom": {"name": "g", "input": "ls"}},
                        {"id": "3", "type": "function", "function": {"name": "h", "arguments": "{}"}},
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 30,
            "completion_tokens": 20,
            "total_tokens": 50,
            "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 7},
        },
    }


def test_refusals_annotations_and_unknown_stops() -> None:
    events: list[Event] = [
        Text("no", refusal=True),
        Text("", extra={"annotations": [{"a": 1}]}),
        Finish("content_filter", 0, "policy"),
    ]
    (choice,) = written(*events, Usage(Tokens(1, 1)))["choices"]
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": "no", "annotations": [{"a": 1}]}
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("content_filter", "policy")


def test_an_empty_answer_has_empty_text() -> None:
    assert written(Finish("stop"))["choices"][0]["message"]["content"] == ""


def test_ids_of_this_dialect_stay_as_they_are() -> None:
    first = Start("req-7", "m", 5, "chat")
    assert written(Text("a"), Finish("stop", extra={"stop_reason": 3}), first=first)["id"] == "req-7"
    assert written(Finish("stop", extra={"stop_reason": 3}), first=first)["choices"][0]["stop_reason"] == 3
    assert "stop_reason" not in written(Finish("stop", extra={"stop_reason": 3}))["choices"][0]


def test_the_reply_says_who_answered_and_for_how_much() -> None:
    who = served(tier="simple", score=0.1, session="s")
    usage = Usage(Tokens(1, 1), cost_nano=1_500_000, estimated=True, truncated=True)
    assert written(Text("a"), Finish("stop"), usage, first=start(served=who))["tierway"] == {
        "model": "up/m",
        "upstream": "up",
        "tier": "simple",
        "score": 0.1,
        "reason": "cheapest",
        "cost_usd": 0.0015,
        "attempts": 1,
        "session": "s",
        "usage_estimated": True,
        "truncated": True,
    }


def test_a_simulated_answer_says_so() -> None:
    first = start(served=served(simulated=True), fingerprint="fp", service_tier="flex")
    body = written(Text("a"), Finish("stop"), first=first)
    assert (body["system_fingerprint"], body["service_tier"]) == ("simulated", "flex")
    assert written(Text("a"), first=start(fingerprint="fp"))["system_fingerprint"] == "fp"


def whole(reply: dict[str, Any], **asked: Any) -> Answer:
    request = ask(**asked)
    found = {"id": "1", "created": 5, "model": "x", **reply}
    return fold(chat.read_reply(orjson.dumps(found), request, card(), chat.write_request(request, card())))


HI = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop", "odd": 1}


def test_a_reply_of_the_same_dialect_is_only_patched() -> None:
    answer = whole({"choices": [HI], "timings": {"a": 1}, "system_fingerprint": "fp"})
    answer.start.served = served(simulated=True)
    answer.usage = Usage(Tokens(3, 2), estimated=True)
    body = orjson.loads(chat.write_reply(answer, ask()))
    assert body["timings"] == {"a": 1} and body["choices"][0]["odd"] == 1
    assert body["usage"]["total_tokens"] == 5 and body["tierway"]["usage_estimated"] is True
    assert body["system_fingerprint"] == "simulated"


FUNCTIONS: dict[str, Any] = {"functions": [{"name": "f"}]}


@pytest.mark.parametrize("same", [True, False])
def test_a_legacy_caller_gets_a_function_call(same: bool) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}
    choice = {"index": 0, "message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}
    if same:
        body = orjson.loads(chat.write_reply(whole({"choices": [choice]}, **FUNCTIONS), ask(**FUNCTIONS)))
    else:
        body = written(ToolCall(0, "", "1", "f"), Finish("tool_calls"), **FUNCTIONS)
    (found,) = body["choices"]
    assert found["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert "tool_calls" not in found["message"]
    assert found["finish_reason"] == "function_call"


def test_a_legacy_caller_gets_plain_text_as_ever() -> None:
    (choice,) = written(Text("a"), Finish("stop"), **FUNCTIONS)["choices"]
    assert choice["finish_reason"] == "stop" and "function_call" not in choice["message"]
    named = written(ToolCall(0, "{}", "1", "f"), Finish("stop"), **FUNCTIONS)["choices"][0]
    assert named["finish_reason"] == "stop" and named["message"]["function_call"]["name"] == "f"


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (InvalidValue("bad", param="n"), ["bad", "invalid_request_error", "n", "invalid_value"]),
        (InternalError("req-1"), ["req-1", "server_error", None, "internal_error"]),
        (Throttled("wait"), ["wait", "rate_limit_error", None, "upstream_rate_limited"]),
    ],
)
def test_errors_always_have_all_four_fields(error: Any, fields: list[Any]) -> None:
    body = orjson.loads(chat.write_error(error))
    assert body == {"error": dict(zip(["message", "type", "param", "code"], fields, strict=True))}
