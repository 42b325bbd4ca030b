from __future__ import annotations

import json
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
    ServerFault,
    Throttled,
)
from app.core.events import TOGETHER_MOST, Finish, Start, Text, Usage, fold
from app.core.money import Tokens
from app.wire import chat
from app.wire.codec import Outgoing
from tests.wire.chat_cases import ask, card, chunk, read

HELLO = chunk({"role": "assistant", "content": ""}) + chunk({"content": "Hi"})
DONE = b"data: [DONE]\n\n"


def data(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def test_start_tells_the_upstreams_own_name_for_the_model() -> None:
    """Servers echo what they were asked, or a path; the client is told who answered."""
    (start, *_) = read(
        [chunk({"content": "x"}, "stop", model="/models/x", system_fingerprint="fp", service_tier="flex")]
    )
    assert start == Start("chatcmpl-1", "gpt-6-luna", 1_763_600_000, "chat", fingerprint="fp", service_tier="flex")


def test_a_stream_without_a_usable_head_gets_one() -> None:
    (start, *_) = read([chunk({"content": "x"}, "stop", id=None, created="now", system_fingerprint=3, service_tier=[])])
    assert isinstance(start, Start)
    assert start.id == "chatcmpl-req-1"
    assert start.created > 1_700_000_000
    assert start.fingerprint is None and start.service_tier is None


@pytest.mark.parametrize(
    "piece",
    [
        chunk({"content": "x"}, model="other"),
        chunk({"content": "x"}, id="chatcmpl-2"),
        chunk({"content": "x"}, created=1),
        chunk({"content": "x", "role": "assistant"}),
        chunk({"content": "x", "reasoning": "y"}),
        chunk({"content": "x", "annotations": [1]}),
        chunk({"content": "x"}, usage={"prompt_tokens": 1, "completion_tokens": 1}),
        chunk({"content": "x"}).replace(b'"index":0', b'"index":0,"logprobs":{"content":[{"token":"x"}]}'),
        chunk({"content": "x"}).replace(b',"choices"', b',\ndata: "choices"'),
        chunk({"content": "x"}, "stop"),
        chunk({"content": "x"}).replace(b'"index":0,', b""),
    ],
)
def test_only_chunks_that_need_no_change_keep_their_bytes(piece: bytes) -> None:
    events = read([HELLO, piece, chunk({}, "stop"), DONE])
    texts = [event for event in events if isinstance(event, Text)]
    assert texts[0].raw is not None
    assert texts[1].text == "x" and texts[1].raw is None


@pytest.mark.parametrize(
    "piece",
    [
        chunk({"content": "x", "role": None, "tool_calls": [], "refusal": None}),
        chunk({"content": "x"}, usage=None, obfuscation="a"),
    ],
)
def test_empty_fields_do_not_cost_the_bytes(piece: bytes) -> None:
    events = read([HELLO, piece, chunk({}, "stop")])
    assert Text("x", raw=piece[6:-2]) in events


def test_plain_chunks_of_one_read_go_on_as_one_with_their_bytes() -> None:
    """The client gets every chunk as it was sent, in one write; what is no plain text keeps its place among them."""
    words = ["a", "\u00e9\u6a21", "b c", 'say "no"', "d", "e"]
    chunks = [chunk({"content": word}) for word in words]
    events = read([HELLO, b"".join(chunks) + chunk({}, "stop") + DONE])
    texts = [event for event in events if isinstance(event, Text)][1:]
    assert [(event.text, event.pieces) for event in texts] == [("a\u00e9\u6a21b c", 3), ('say "no"', 1), ("de", 2)]
    assert b"".join(b"data: " + (event.raw or b"") + b"\n\n" for event in texts) == b"".join(chunks)


def test_no_more_go_on_as_one_than_may_be_held() -> None:
    events = read([HELLO, chunk({"content": "x"}) * (TOGETHER_MOST + 1) + chunk({}, "stop")])
    assert [event.pieces for event in events if isinstance(event, Text)][1:] == [TOGETHER_MOST, 1]


@pytest.mark.parametrize(
    ("chunks", "tokens"),
    [
        ([chunk({}, "stop", usage={"prompt_tokens": 5, "completion_tokens": 2})], Tokens(5, 2)),
        ([chunk({}, "stop"), data({"usage": {"prompt_tokens": 5, "completion_tokens": 2}})], Tokens(5, 2)),
        (
            [chunk({}, "stop"), data({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})],
            Tokens(5, 2),
        ),
        (
            [
                chunk({"content": "x"}, usage={"prompt_tokens": 5, "completion_tokens": 1}),
                chunk({}, "stop", usage={"prompt_tokens": 5, "completion_tokens": 2}),
                data({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": "many"}}),
            ],
            Tokens(5, 2),
        ),
    ],
)
def test_usage_comes_once_and_last_wherever_it_was_said(chunks: list[bytes], tokens: Tokens) -> None:
    events = read([HELLO, *chunks, DONE])
    assert [event.tokens for event in events if isinstance(event, Usage)] == [tokens]
    assert isinstance(events[-1], Usage)


def test_a_finish_is_told_when_it_is_seen() -> None:
    """Whoever must stop reading at the finish cannot wait for a usage that may never come."""
    request = ask(stream=True)
    reader = chat.reader(request, card(), chat.write_request(request, card()))
    assert reader.feed(HELLO + chunk({}, "stop"))[-1] == Finish("stop")
    assert reader.end() == []


@pytest.mark.parametrize(
    "tail", [b"", DONE, b"data: [DONE]", b"data: [DONE]\n\n" + data({"error": "late"}) + b"data: {"]
)
def test_the_end_may_be_marked_or_not_and_nothing_counts_after_it(tail: bytes) -> None:
    assert fold(read([HELLO, chunk({}, "stop"), tail])).choices[0].text == "Hi"


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [DONE],
        [b": ping\n\n"],
        [data({"type": "ping"})],
        [HELLO],
        [HELLO, DONE],
        [HELLO, b'data: {"choices":[{"del'],
        [data({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}), DONE],
    ],
)
def test_an_end_without_a_finish_reason_never_looks_whole(chunks: list[bytes]) -> None:
    with pytest.raises(Incomplete):
        read(chunks)


def test_one_finished_choice_does_not_finish_the_other() -> None:
    second = HELLO.replace(b'"index":0', b'"index":1')
    with pytest.raises(Incomplete):
        read([HELLO, second, chunk({}, "stop")], ask(stream=True, n=2))


ERRORS: list[tuple[Any, type[GatewayError]]] = [
    ({"error": {"message": "boom", "type": "server_error", "param": None, "code": None}}, ServerFault),
    ({"error": {"message": "boom", "code": 503}}, Busy),
    ({"error": {"message": "boom", "type": "overloaded_error"}, "choices": []}, Busy),
    ({"error": {"message": "boom", "code": "rate_limit_exceeded"}}, Throttled),
    ({"error": {"message": "boom", "code": "insufficient_quota"}}, AccountFault),
    ({"error": {"message": "This model's maximum context length is 5 tokens", "code": 400}}, ContextLengthExceeded),
    ({"error": "boom"}, ServerFault),
    ({"error": [1]}, ServerFault),
    ({"object": "error", "message": "boom", "type": "NotFoundError", "code": 404}, AccountFault),
    ({"detail": "boom"}, ServerFault),
]


@pytest.mark.parametrize(("value", "kind"), ERRORS)
@pytest.mark.parametrize("before", [b"", HELLO])
@pytest.mark.parametrize("after", [b"", DONE])
def test_an_error_inside_a_200_is_an_error(value: Any, kind: type[GatewayError], before: bytes, after: bytes) -> None:
    with pytest.raises(kind):
        read([before, data(value), after])


def test_what_came_before_an_error_is_not_lost() -> None:
    """However the bytes are split: the answer so far, then the error."""
    request = ask(stream=True)
    for chunks in ([HELLO + data({"error": "boom"})], [HELLO, data({"error": "boom"})]):
        reader = chat.reader(request, card(), chat.write_request(request, card()))
        assert [type(event) for event in reader.feed(chunks[0])] == [Start, Text]
        with pytest.raises(ServerFault):
            reader.feed(chunks[1] if len(chunks) > 1 else b"")
        with pytest.raises(ServerFault):
            reader.feed(DONE)
        with pytest.raises(ServerFault):
            reader.end()


@pytest.mark.parametrize(
    "value",
    [
        [],
        "x",
        5,
        {"choices": {}},
        {"choices": [5]},
        {"choices": [{"index": "0", "delta": {}}]},
        {"choices": [{"index": -1, "delta": {}}]},
        {"choices": [{"index": 1, "delta": {}}]},
        {"choices": [{"index": True, "delta": {}}]},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": {"content": 5}}]},
    ],
)
def test_nonsense_is_a_bad_reply(value: Any) -> None:
    with pytest.raises(BadReply):
        read([data(value), chunk({}, "stop")])


@pytest.mark.parametrize(
    "line", [b"data: <html>\n\n", b"data: {\n\n", b"data: " + b'{"a":' * 200 + b"1" + b"}" * 200 + b"\n\n"]
)
def test_what_is_not_json_is_a_bad_reply(line: bytes) -> None:
    with pytest.raises(BadReply):
        read([HELLO, line, chunk({}, "stop")])


def test_a_missing_index_is_the_first_choice() -> None:
    piece = chunk({"content": "x"}, "stop").replace(b'"index":0,', b"")
    assert fold(read([piece])).choices[0].index == 0


KEYS = st.sampled_from(
    """id model created choices index delta content role refusal reasoning tool_calls function name arguments
    finish_reason logprobs usage prompt_tokens error message object detail thinking_blocks function_call""".split()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 5) | st.sampled_from(["", "x", "stop", "error", "gpt-6-luna"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(
    st.lists(JSON | st.dictionaries(KEYS, JSON) | JSON.map(lambda inner: {"choices": [{"delta": inner}]}), max_size=5)
)
def test_no_stream_can_break_us(values: list[Any]) -> None:
    try:
        events = read([HELLO, *(data(value) for value in values), chunk({}, "stop")])
    except GatewayError:
        return
    assert isinstance(events[0], Start)
    assert any(isinstance(event, Finish) for event in events)


@given(
    st.lists(st.text(min_size=1), min_size=1, max_size=8), st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans()
)
def test_pieces_are_read_alike_whether_they_are_parsed_or_not(
    texts: list[str], separators: tuple[str, str], escaped: bool
) -> None:
    """What is not parsed because it looks like the chunk before must say what a parser would say."""
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": card().name}
    values = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    lines = [
        json.dumps({**head, "choices": [{"index": 0, "delta": value}]}, ensure_ascii=escaped, separators=separators)
        for value in values
    ]
    reader = chat.reader(ask(), card(), Outgoing(b"{}"))
    try:
        read_ = [event for line in lines for event in reader.feed(b"data: " + line.encode() + b"\n\n")]
    except (UnicodeEncodeError, BadReply):
        assert any(not text.isprintable() for text in texts)  # half a character, which is no JSON of ours
        return
    assert [event.text for event in read_ if isinstance(event, Text) and event.text] == texts
    assert all(
        orjson.loads(event.raw)["choices"][0]["delta"]["content"] == event.text
        for event in read_
        if isinstance(event, Text) and event.raw
    )


@pytest.mark.parametrize(
    "second",
    [
        '{"index":0,"delta":{"content":"a","content":"b"}}',
        '{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}',
        '{"index":0,"delta":{"content":"a\\"b"}}',
        '{"index":0,"delta":{"content":"a","role":"x"}}',
    ],
)
def test_what_only_begins_like_the_chunk_before_is_parsed(second: str) -> None:
    first = '{"index":0,"delta":{"content":"x"}}'
    lines = [f'{{"id":"c","choices":[{choice}]}}'.encode() for choice in (first, first, second)]
    alone = chat.reader(ask(), card(), Outgoing(b"{}"))
    expected = [each for line in (lines[0], lines[2]) for each in alone.feed(b"data: " + line + b"\n\n")][-1]
    reader = chat.reader(ask(), card(), Outgoing(b"{}"))
    found = [each for line in lines for each in reader.feed(b"data: " + line + b"\n\n")][-1]
    assert found == expected
