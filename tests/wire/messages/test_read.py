"""What Claude sends, as events: lost or doubled pieces here are wrong answers, lost counts are wrong bills."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import AccountFault, BadReply, Busy, GatewayError, Incomplete, Throttled
from app.core.events import Answer, Reasoning, Start, Text, ToolCall, Usage, fold
from app.core.money import Tokens
from app.wire import messages
from app.wire.messages.read import annotation, tokens_of
from tests.wire.messages_cases import (
    CURRENT,
    GOLDEN,
    ask,
    begun,
    call,
    card,
    cut,
    ended,
    golden,
    outgoing,
    read,
    result,
    said,
    sse,
    text,
    whole,
)


def summary(answer: Answer) -> dict[str, Any]:
    (choice,) = answer.choices
    assert answer.usage is not None
    calls = []
    for made in choice.calls:
        try:
            arguments = orjson.loads(made.arguments)
        except orjson.JSONDecodeError:
            arguments = made.arguments
        calls.append({"id": made.id, "name": made.name, "arguments": arguments})
    return {
        "text": choice.text,
        "refusal": choice.refusal,
        "thoughts": [asdict(thought) for thought in choice.thoughts],
        "calls": calls,
        "finish": choice.finish,
        "detail": choice.detail,
        "extra": choice.extra,
        "finish_extra": choice.finish_extra,
        "tokens": asdict(answer.usage.tokens),
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_streams_add_up_to_what_was_recorded(name: str) -> None:
    stream, recorded = golden(name)
    assert summary(fold(read(stream))) == recorded["expected"]


@pytest.mark.parametrize("name", [name for name in GOLDEN if golden(name)[1]["reply"]])
def test_whole_replies_add_up_to_the_same_as_their_streams(name: str) -> None:
    """A client that does not stream gets the same answer for the same money."""
    stream, recorded = golden(name)
    assert summary(fold(whole(recorded["reply"]))) == summary(fold(read(stream))) == recorded["expected"]


@pytest.mark.parametrize("name", GOLDEN)
def test_line_ends_do_not_matter(name: str) -> None:
    stream, recorded = golden(name)
    assert summary(fold(read(b": hello\r\n\r\n" + stream.replace(b"\n", b"\r\n")))) == recorded["expected"]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(GOLDEN), st.lists(st.integers(0, 5_000), max_size=30))
def test_any_split_of_the_bytes_gives_the_same_events(name: str, places: list[int]) -> None:
    stream, _ = golden(name)
    assert read(*cut(stream, places)) == read(stream)


def test_the_start_names_the_card_and_the_tier() -> None:
    """Whoever serves, the reply's model is the one that was chosen, not an alias the upstream made of it."""
    start = read(sse(begun(service_tier="standard"), *ended()))[0]
    assert start == Start("msg_1", CURRENT, 0, "messages", service_tier="default", prompt=Tokens(5))
    unnamed = {"type": "message_start", "message": {"usage": {"service_tier": ["?"]}}}
    start = read(sse(unnamed, *ended()))[0]
    assert isinstance(start, Start) and start.id == "msg_req-1" and start.service_tier is None


def test_a_whole_reply_keeps_its_body() -> None:
    """A client of the same dialect gets fields that we do not know."""
    _, recorded = golden("text")
    start = whole(recorded["reply"])[0]
    assert isinstance(start, Start) and start.body == {**recorded["reply"], "model": CURRENT}


def test_tool_ids_that_were_made_safe_come_back_as_they_were() -> None:
    request = ask(said("user", "x"), said("assistant", call("call:1")), result("call:1"))
    sent = outgoing(request)
    block = {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
    reply = {"content": [block], "stop_reason": "tool_use", "usage": {}}
    events = messages.read_reply(orjson.dumps(reply), request, card(), sent)
    assert events[1] == ToolCall(0, "", "call:1", "f")


def test_blocks_that_start_with_content_lose_nothing() -> None:
    """Compatible servers send whole blocks in their start events, and forget to stop them."""
    blocks = [
        {"type": "text", "text": "Hi"},
        {"type": "thinking", "thinking": "Hm", "signature": "s"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "u", "name": "g", "input": None},
    ]
    starts = [{"type": "content_block_start", "index": i, "content_block": block} for i, block in enumerate(blocks)]
    events = read(sse(begun(), *starts, *ended("tool_use")))
    assert events[1:-2] == [
        Text("Hi"),
        Reasoning("Hm"),
        ToolCall(0, '{"a":1}', "t", "f"),
        ToolCall(1, "", "u", "g"),
        Reasoning("", signature="s"),
        ToolCall(1, "{}"),
    ]


def test_that_a_model_thinks_is_told_at_once() -> None:
    """Newer models show none of it: without this, minutes of thinking would end in a first-token timeout."""
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    reader = messages.reader(ask(), card(), outgoing(ask()))
    assert reader.feed(sse(begun(), block))[1:] == [Reasoning("")]


def test_a_missing_count_is_not_zero() -> None:
    """Without a count there is no usage event, so that the gateway estimates instead of charging nothing."""
    start = {"type": "message_start", "message": {"usage": None}}
    events = read(sse(start, *text(0, "Hi"), *ended(output_tokens=None)))
    assert not any(isinstance(event, Usage) for event in events)


def test_counts_are_totals_and_null_says_nothing() -> None:
    events = read(sse(begun(cache_read_input_tokens=7), *ended(output_tokens=9, cache_read_input_tokens=None)))
    assert isinstance(events[-1], Usage)
    assert events[-1].tokens == Tokens(prompt=12, completion=9, cache_read=7)
    assert events[-1].details == {"input_tokens": 5, "output_tokens": 9, "cache_read_input_tokens": 7}


@pytest.mark.parametrize(
    ("kind", "error"),
    [("overloaded_error", Busy), ("rate_limit_error", Throttled), ("authentication_error", AccountFault)],
)
def test_an_error_as_the_first_event_of_a_200_is_raised(kind: str, error: type[GatewayError]) -> None:
    """Nothing has reached the client yet, so that another model can still answer."""
    with pytest.raises(error):
        read(sse({"type": "error", "error": {"type": kind, "message": "Overloaded"}}))


def test_what_came_before_an_error_is_given_out_first() -> None:
    """However the bytes are split, a client has seen all text that came before the break."""
    stream = sse(begun(), *text(0, "Hel", "lo"), {"type": "error", "error": {"type": "overloaded_error"}})
    reader = messages.reader(ask(), card(), outgoing(ask()))
    assert [event for event in reader.feed(stream) if isinstance(event, Text)] == [Text("Hel"), Text("lo")]
    with pytest.raises(Busy):
        reader.feed(b"")
    with pytest.raises(Busy):
        reader.end()


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        sse(begun()),
        sse(begun(), *text(0, "half")),
        sse(begun(), *text(0, "half"), ended()[0]),
        sse(begun(), *text(0, "half"), ended(None)[0], ended(None)[1]),
        sse(begun(), *text(0, "half"), *ended(["end_turn"])),
        sse(begun(), *ended())[:-20],
    ],
)
def test_a_stream_that_ends_without_saying_why_is_incomplete(stream: bytes) -> None:
    """A truncated answer must never look whole."""
    with pytest.raises(Incomplete):
        read(stream)


def test_a_last_event_without_its_blank_line_counts() -> None:
    assert read(sse(begun(), *ended())[:-1])[-1] == read(sse(begun(), *ended()))[-1]


def test_nothing_counts_after_the_end() -> None:
    late = sse(begun(), *text(0, "late"), {"type": "error", "error": {}})
    assert read(sse(begun(), *ended()), late) == read(sse(begun(), *ended()))


def test_a_second_start_and_deltas_of_no_block_are_passed_over() -> None:
    assert read(sse(begun(), begun(), *text(0, "a")[1:], *ended())) == read(sse(begun(), *ended()))


@pytest.mark.parametrize(
    "event",
    [
        b"data: <html>\n\n",
        b"data: []\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        sse({"type": "message_stop"}),
        sse({"type": "message_start"}),
        sse(begun(), {"type": "content_block_start", "index": 0, "content_block": []}),
        sse(begun(), {"type": "content_block_start", "index": "0", "content_block": {"type": "text"}}),
        sse(begun(), {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": 1}}),
        sse(begun(), text(0)[0], {"type": "content_block_delta", "index": 0}),
        sse(begun(), text(0)[0], {"type": "content_block_delta", "index": [], "delta": {}}),
        sse(begun(), {"type": "message_delta", "delta": None}),
    ],
)
def test_what_is_not_the_wire_we_know_is_a_bad_reply(event: bytes) -> None:
    with pytest.raises(BadReply):
        read(event)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"<html>", BadReply),
        ([], BadReply),
        ({}, BadReply),
        ({"content": {}}, BadReply),
        ({"content": ["x"]}, BadReply),
        ({"content": [], "stop_reason": None}, Incomplete),
        ({"type": "error", "error": {"type": "overloaded_error"}}, Busy),
    ],
)
def test_whole_replies_that_are_none(reply: Any, error: type[GatewayError]) -> None:
    with pytest.raises(error):
        whole(reply)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
TYPES = ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "error"]
BLOCKS = ["text", "thinking", "redacted_thinking", "tool_use", "x"]
DELTAS = ["text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta", "x"]
FIELDS = ["text", "thinking", "signature", "data", "id", "name", "input", "partial_json", "citations", "citation"]
pieces = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from(BLOCKS + DELTAS),
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=3),
)
hostile = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from([*TYPES, "message_stop"]),
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(0, 2) | json_values,
            "content_block": pieces | json_values,
            "delta": pieces | json_values,
            "message": json_values,
            "usage": json_values,
            "error": json_values,
        },
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(hostile, max_size=6))
def test_wrong_types_anywhere_end_in_a_core_error(events: list[dict[str, Any]]) -> None:
    """Upstream bytes are hostile: a TypeError of ours would take the request down with no fail-over."""
    try:
        read(sse(begun(), *events, *ended()))
    except GatewayError:
        pass


@settings(max_examples=100, deadline=None)
@given(st.lists(pieces | json_values, max_size=3), json_values)
def test_wrong_types_in_whole_replies_end_in_a_core_error(content: list[Any], other: Any) -> None:
    reply = {"content": content, "stop_reason": "refusal", "stop_details": other, "usage": other, "id": other}
    try:
        whole(reply)
    except GatewayError:
        pass


def test_tokens_as_openai_counts_them() -> None:
    """Cache reads and writes belong to the prompt; forgetting them makes long conversations look nearly free."""
    usage = {
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 1000,
        "cache_creation": {"ephemeral_1h_input_tokens": 500},
        "output_tokens_details": {"thinking_tokens": 50},
    }
    assert tokens_of(usage) == Tokens(1110, 20, cache_read=1000, cache_write=100, cache_write_1h=100, reasoning=20)
    assert tokens_of({"input_tokens": True, "output_tokens": 3}) is None
    assert tokens_of({"input_tokens": -1, "output_tokens": 3}) is None
    assert tokens_of({"input_tokens": 2**64 - 1, "output_tokens": 3}) is None


def test_citations_without_an_address_are_left_out() -> None:
    cited = {"source": "https://example.com", "title": None}
    made = {"url": "https://example.com", "title": "", "start_index": 1, "end_index": 2}
    assert annotation(cited, 1, 2) == {"type": "url_citation", "url_citation": made}
    assert annotation({"source": "shelf 3"}, 1, 2) is None
    assert annotation(None, 1, 2) is None
