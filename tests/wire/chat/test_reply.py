from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import (
    AccountFault,
    BadReply,
    Busy,
    ContextLengthExceeded,
    GatewayError,
    Incomplete,
    Rejected,
    RequestTooLarge,
    ServerFault,
    Throttled,
)
from app.core.events import Event, Finish, Start, Text, Usage, fold
from app.wire import chat
from tests.wire.chat_cases import ask, card

HEAD = {"id": "chatcmpl-1", "created": 1_763_600_000, "model": "echo"}


def read(reply: Any, **asked: Any) -> list[Event]:
    request, model = ask(**asked), card()
    body = reply if isinstance(reply, bytes) else orjson.dumps(reply)
    return chat.read_reply(body, request, model, chat.write_request(request, model))


def reply(message: Any = None, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hi"} if message is None else message
    return {**HEAD, "choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}


def body(events: list[Event]) -> dict[str, Any]:
    assert isinstance(events[0], Start) and events[0].body is not None
    return events[0].body


def test_a_reply_is_a_short_stream_of_events() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    start, text, finish, last = read(reply(usage=usage))
    assert isinstance(start, Start) and start.model == "gpt-6-luna"
    assert (text, finish) == (Text("Hi"), Finish("stop"))
    assert isinstance(last, Usage) and last.details == usage


def test_the_body_is_normalised_and_keeps_what_we_do_not_know() -> None:
    message = {
        "role": "assistant",
        "reasoning": "hm",
        "odd": 1,
        "tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}],
        "function_call": None,
    }
    assert body(read(reply(message, prompt_logprobs=None, timings={"a": 1}))) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_763_600_000,
        "model": "gpt-6-luna",
        "prompt_logprobs": None,
        "timings": {"a": 1},
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "reasoning_content": "hm",
                    "odd": 1,
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
    }


@pytest.mark.parametrize(
    ("message", "content"),
    [({"content": ""}, ""), ({"content": None}, ""), ({}, ""), ({"refusal": "no"}, None), ({"content": "a"}, "a")],
)
def test_content_is_text_unless_something_else_is_there(message: dict[str, Any], content: str | None) -> None:
    assert body(read(reply(message)))["choices"][0]["message"]["content"] == content


def test_logprobs_with_calls_do_not_make_content() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    found = reply({"content": None, "tool_calls": [call]}, "tool_calls")
    found["choices"][0]["logprobs"] = {"content": [{"token": "x"}]}
    choice = body(read(found))["choices"][0]
    assert choice["message"]["content"] is None
    assert choice["logprobs"] == {"content": [{"token": "x"}]}


def test_choices_are_put_in_order() -> None:
    second = {"index": 1, "message": {"content": "b"}, "finish_reason": "stop"}
    first = {"index": 0, "message": {"content": "a"}, "finish_reason": "length"}
    events = read({**HEAD, "choices": [second, first]}, n=2)
    assert [choice.text for choice in fold(events).choices] == ["a", "b"]
    assert [choice["index"] for choice in body(events)["choices"]] == [0, 1]


def test_an_unknown_finish_keeps_its_word() -> None:
    choice = body(read(reply(finish="repetition")))["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("stop", "repetition")


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (reply(finish=None), Incomplete),
        ({**HEAD, "choices": []}, Incomplete),
        (HEAD, BadReply),
        ({**HEAD, "choices": {}}, BadReply),
        ({**HEAD, "choices": [1]}, BadReply),
        ({**HEAD, "choices": [{"message": None, "finish_reason": "stop"}]}, BadReply),
        ({**HEAD, "choices": [{"index": 0, "message": {}, "finish_reason": "stop"}] * 2}, BadReply),
        ({**HEAD, "choices": [{"index": "0", "message": {}, "finish_reason": "stop"}]}, BadReply),
        (reply({"content": 5}), BadReply),
        (reply(finish=5), BadReply),
        (reply(finish="error"), ServerFault),
        (b"<html>", BadReply),
        (b"data: {}\n\n", BadReply),
        (b"[]", BadReply),
        (b"", BadReply),
        ({"error": {"message": "x", "code": 503}}, Busy),
        ({"error": "x"}, ServerFault),
        ({"object": "error", "message": "x", "code": 404}, AccountFault),
        ({"detail": "x"}, ServerFault),
    ],
)
def test_what_is_no_answer_is_an_error(found: Any, kind: type[GatewayError]) -> None:
    with pytest.raises(kind):
        read(found)


KEYS = st.sampled_from(
    """id model created choices index message content refusal reasoning tool_calls function name arguments
    finish_reason logprobs usage prompt_tokens completion_tokens error detail thinking_blocks function_call""".split()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 5) | st.sampled_from(["", "x", "stop", "tool_calls"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(KEYS, JSON), st.dictionaries(KEYS, JSON), JSON)
def test_no_reply_can_break_us(fields: dict[str, Any], message: dict[str, Any], logprobs: Any) -> None:
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
    for found in (fields, {**fields, "choices": [choice]}):
        try:
            events = read(found)
        except GatewayError:
            continue
        assert orjson.loads(chat.write_reply(fold(events), ask()))["choices"][0]["finish_reason"]


# --- errors ---------------------------------------------------------------------------------------------------------

VLLM_404 = {
    "error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}
}
VLLM_LONG = {
    "error": {
        "message": "This model's maximum context length is 512 tokens. However, your prompt contains at least 513",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    }
}
LLAMA_LONG = {
    "error": {"message": "...", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
}
FASTAPI = {"detail": [{"loc": ["body", "tools"], "msg": "Extra inputs are not permitted"}, "odd", {"msg": "x"}]}


@pytest.mark.parametrize(
    ("status", "found", "kind", "message"),
    [
        (
            400,
            {"error": {"message": "bad 'top_p'", "type": "Bad Request", "param": "top_p", "code": 400}},
            Rejected,
            "bad 'top_p'",
        ),
        (400, VLLM_LONG, ContextLengthExceeded, "maximum context length is 512"),
        (400, LLAMA_LONG, ContextLengthExceeded, "..."),
        (413, b"", RequestTooLarge, "413"),
        (422, FASTAPI, Rejected, "tools: Extra inputs are not permitted; odd; x"),
        (422, {"detail": "Unexpected keys in the request: {'seed'}"}, Rejected, "Unexpected keys"),
        (400, {"message": "flat"}, Rejected, "flat"),
        (400, b"plain words", Rejected, "plain words"),
        (400, b"<html><body>nginx 10.0.0.1</body></html>", Rejected, "status 400"),
        (400, b'["odd"]', Rejected, "status 400"),
        (400, {"error": {"message": "x", "code": "insufficient_quota"}}, AccountFault, "quota"),
        (
            401,
            {"error": {"message": "Incorrect API key provided: sk-123", "code": "invalid_api_key"}},
            AccountFault,
            "credentials",
        ),
        (402, b"", AccountFault, "billing"),
        (403, b"", AccountFault, "permit"),
        (404, VLLM_404, AccountFault, "model"),
        (404, {"detail": "Not Found"}, AccountFault, "endpoint"),
        (408, b"", ServerFault, "408"),
        (429, {"error": {"message": "You exceeded your current quota, please check your plan"}}, AccountFault, "quota"),
        (429, b"", Throttled, "limiting"),
        (500, b"Internal Server Error at http://10.0.0.7/", ServerFault, "status 500"),
        (502, b"<html>", ServerFault, "502"),
        (503, b"", Busy, "overloaded"),
        (529, b"", Busy, "overloaded"),
        (302, b"", BadReply, "302"),
    ],
)
def test_each_error_reply_has_its_meaning(status: int, found: Any, kind: type[GatewayError], message: str) -> None:
    raw = found if isinstance(found, bytes) else orjson.dumps(found)
    error = chat.read_error(status, {}, raw)
    assert type(error) is kind
    assert message in error.message
    assert "10.0.0" not in error.message and "sk-" not in error.message


def test_waits_are_heard() -> None:
    assert chat.read_error(429, {"retry-after": "7"}, b"").retry_after == 7.0
    assert chat.read_error(503, {"retry-after": "8"}, b"").retry_after == 8.0


def test_the_callers_field_is_named_again() -> None:
    error = chat.read_error(400, {}, b'{"error": {"message": "x", "param": "top_p", "code": "invalid_value"}}')
    assert isinstance(error, Rejected)
    assert (error.param, error.upstream_status) == ("top_p", 400)


@given(st.integers(300, 599), st.binary(max_size=50) | JSON.map(orjson.dumps))
def test_no_error_reply_can_break_us(status: int, found: bytes) -> None:
    assert isinstance(chat.read_error(status, {}, found), GatewayError)
