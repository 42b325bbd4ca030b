from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import errors
from app.core.events import Answer, Start, Text, Usage, fold
from app.core.request import Request
from app.wire import ollama
from tests.wire.ollama_cases import (
    GOLDEN,
    ask,
    card,
    cut,
    done,
    golden,
    lines,
    read,
    read_with_fault,
    said,
    user,
    whole,
)


def seen(answer: Answer) -> dict[str, Any]:
    (choice,) = answer.choices
    assert answer.usage is not None
    tokens = answer.usage.tokens
    return {
        "text": choice.text,
        "reasoning": choice.reasoning,
        "calls": [[call.id, call.name, call.arguments] for call in choice.calls],
        "finish": choice.finish,
        "detail": choice.detail,
        "tokens": [tokens.prompt, tokens.completion, tokens.cache_read],
        "estimated": answer.usage.estimated,
        "truncated": answer.usage.truncated,
    }


def expected(recorded: dict[str, Any], got: dict[str, Any]) -> dict[str, Any]:
    """Where the upstream gave no id, any id will do."""
    wanted: dict[str, Any] = recorded["answer"]
    calls = [[id_ or made[0], *rest] for (id_, *rest), made in zip(wanted["calls"], got["calls"], strict=True)]
    return {**wanted, "calls": calls}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_recorded_conversations(path: Path) -> None:
    """What real servers send is understood, and streaming changes nothing about the answer."""
    recorded = golden(path)
    stream = lines(*recorded["stream"])
    streamed = fold(read([stream]))
    assert seen(streamed) == expected(recorded, seen(streamed))
    unstreamed = fold(whole(recorded["reply"]))
    assert unstreamed == streamed
    ids = [call.id for call in streamed.choices[0].calls]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    for size in range(1, len(stream), 7):
        assert read([stream[:size], stream[size:]]) == read([stream])


@given(st.sampled_from(GOLDEN), st.lists(st.integers(0, 99_999), max_size=12), st.booleans())
def test_the_network_may_cut_anywhere(path: Path, places: list[int], newline: bool) -> None:
    stream = lines(*golden(path)["stream"]).removesuffix(b"" if newline else b"\n")
    assert read(cut(stream, places)) == read([stream])


def test_the_answer_begins_with_who_and_when() -> None:
    start = whole(done(created_at="2026-08-21T10:00:00.123456789Z"))[0]
    assert start == Start("chatcmpl-req-1", "rnj-1", 1_787_306_400, "ollama")
    for odd, seconds in (("0001-01-01T00:00:00Z", 0), ("1970-01-01T00:00:09", 9), ("soon", 0), (7, 0), (None, 0)):
        start = whole(done(created_at=odd))[0]
        assert isinstance(start, Start)
        assert start.created == seconds


@pytest.mark.parametrize(
    "line",
    [
        b"<html>",
        b"[]",
        b"3",
        orjson.dumps({"message": []}),
        orjson.dumps({"message": {"content": 7}}),
        orjson.dumps({"message": {"thinking": {}}}),
        orjson.dumps({"message": {"tool_calls": {}}}),
        orjson.dumps({"message": {"tool_calls": [3]}}),
        orjson.dumps({"message": {"tool_calls": [{"function": {"name": ""}}]}}),
        orjson.dumps({"message": {"tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}}),
        b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":' + b'{"a":' * 400 + b"1" + b"}" * 402 + b"]}}",
        orjson.dumps({"message": {"content": "x"}, "logprobs": {}}),
        orjson.dumps({"message": {"content": "x"}, "logprobs": [3]}),
        orjson.dumps({"message": {"content": "x"}, "logprobs": [{"token": "x", "logprob": "high"}]}),
        orjson.dumps({"message": {"content": "x"}, "logprobs": [{"token": "x", "logprob": 1, "top_logprobs": 1}]}),
    ],
)
def test_nonsense_is_the_upstreams_fault(line: bytes) -> None:
    """It moves on to the next model instead of showing the caller a crash."""
    with pytest.raises(errors.BadReply):
        read([line + b"\n"], ask(logprobs=1))
    with pytest.raises(errors.BadReply):
        whole(line, ask(logprobs=1, stream=False))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
known = st.sampled_from(
    [
        *("message", "content", "thinking", "tool_calls", "function", "name", "arguments", "id", "error", "done"),
        *("done_reason", "prompt_eval_count", "eval_count", "created_at", "logprobs", "token", "logprob"),
    ]
)
hostile = st.dictionaries(
    known,
    json_values | st.dictionaries(known, json_values | st.lists(st.dictionaries(known, json_values), max_size=2)),
)


@given(st.lists(hostile, max_size=3))
def test_no_reply_breaks_the_reader(replies: list[dict[str, Any]]) -> None:
    request = ask(logprobs=2)
    events, fault = read_with_fault([lines(*replies)], request)
    assert fault is not None or isinstance(events[-1], Usage)


def test_a_failure_in_the_middle_keeps_what_came_before() -> None:
    """Content that came in the same packet as the error is not lost, and the error is."""
    broken = lines(said("Hel"), {"error": "an error was encountered while running the model"})
    for chunks in ([broken], cut(broken, [40, 60])):
        events, fault = read_with_fault(chunks)
        assert [event.text for event in events if isinstance(event, Text)] == ["Hel"]
        assert isinstance(fault, errors.ServerFault)
    reader = ollama.reader(ask(), card(), ollama.write_request(ask(), card()))
    reader.feed(broken)
    with pytest.raises(errors.ServerFault):
        reader.feed(b"more")


def test_a_failure_before_content_can_still_fail_over() -> None:
    events, fault = read_with_fault([lines({"message": {}}, {"error": "model 'x' not found"})])
    assert events == []
    assert isinstance(fault, errors.AccountFault)
    with pytest.raises(errors.ServerFault):
        whole({"error": "out of memory"})


@pytest.mark.parametrize(
    "stream", [b"", lines(said("Hel")), lines(said("Hel"))[:-1], lines(said("Hel"), {"done": "true"})]
)
def test_an_answer_cut_short_never_looks_whole(stream: bytes) -> None:
    with pytest.raises(errors.Incomplete):
        read([stream])


def test_a_whole_reply_that_is_not_done_is_incomplete() -> None:
    with pytest.raises(errors.Incomplete):
        whole(said("Hel"))


def test_nothing_counts_after_the_end() -> None:
    assert read([lines(said("a"), done(), {"error": "late"}), lines(said("b"))]) == read([lines(said("a"), done())])


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_a_model_that_was_only_loaded_gave_no_answer(reason: str) -> None:
    with pytest.raises(errors.ServerFault):
        whole(done(done_reason=reason))
    spoken = fold(read([lines(said("Hi"), done(done_reason=reason))]))
    assert (spoken.choices[0].finish, spoken.choices[0].detail) == ("stop", reason)


def test_doubled_and_missing_call_ids_become_distinct() -> None:
    """Two calls with one id could not be answered apart."""
    call = {"function": {"name": "f", "arguments": '{"a":1}'}}
    calls = [{"id": "x", **call}, {"id": "x", **call}, call, {"id": 7, "function": {"name": "f", "arguments": ""}}]
    answer = fold(whole(done(message={"tool_calls": calls})))
    ids = [made.id for made in answer.choices[0].calls]
    assert len(set(ids)) == 4
    assert ids[0] == "x"
    assert [made.arguments for made in answer.choices[0].calls] == ['{"a":1}'] * 3 + ["{}"]


def test_logprobs_come_in_openais_shape_to_those_who_asked() -> None:
    token = {"token": "é", "logprob": -0.1, "top_logprobs": [{"token": "e", "logprob": -2.5, "bytes": [101]}]}
    stream = [
        lines({**said("é"), "logprobs": [token]}, {**said("x"), "logprobs": [{"token": "x", "logprob": -1}]}, done())
    ]
    assert fold(read(stream, ask(logprobs=1))).choices[0].logprobs == {
        "content": [
            {
                "token": "é",
                "logprob": -0.1,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "e", "logprob": -2.5, "bytes": [101]}],
            },
            {"token": "x", "logprob": -1, "bytes": [120], "top_logprobs": []},
        ],
        "refusal": None,
    }
    assert fold(read(stream)).choices[0].logprobs is None
    assert fold(read([lines(said("x"), done())], ask(logprobs=1))).choices[0].logprobs is None


LONG = user("word " * 12_000)


@pytest.mark.parametrize(
    "counts", [{"prompt_eval_count": 1_500}, {"prompt_eval_count": 4_096}, {"prompt_eval_count": 2_050}]
)
def test_a_silent_cut_fails_before_content_and_is_marked_after_it(counts: dict[str, int]) -> None:
    """Where it still can, the request goes to a larger model; a stream that went out says that it was cut."""
    reply = done(message={"content": "Fine."}, eval_count=3, **counts)
    with pytest.raises(errors.Truncated):
        whole(reply, ask(LONG, stream=False))
    with pytest.raises(errors.Truncated):
        read([lines(done(**counts))], ask(LONG))
    answer = fold(read([lines(said("Fine."), done(eval_count=3, **counts))], ask(LONG)))
    assert answer.usage is not None
    assert answer.usage.truncated
    assert answer.choices[0].finish == "stop"


def test_an_answer_that_filled_the_window_says_so() -> None:
    """It ends for its length although the caller asked for more."""
    reply = done(message={"content": "..."}, done_reason="length", prompt_eval_count=3_000, eval_count=1_096)
    answer = fold(whole(reply))
    assert answer.usage is not None
    assert answer.usage.truncated
    assert answer.choices[0].finish == "length"
    asked = fold(whole(reply, ask(max_tokens=1_096)))
    assert asked.usage is not None
    assert not asked.usage.truncated


@pytest.mark.parametrize(
    ("counts", "tokens", "estimated"),
    [
        ({"prompt_eval_count": 9, "eval_count": 4}, (9, 4, 0), False),
        ({"prompt_eval_count": 9, "eval_count": 4, "prompt_eval_cached_count": 8}, (9, 4, 8), False),
        ({"prompt_eval_count": 9, "eval_count": 4, "prompt_eval_cached_count": 99}, (9, 4, 9), False),
        ({"eval_count": 4}, (10, 4, 0), True),
        ({"prompt_eval_count": 9}, (9, 2, 0), True),
        ({"prompt_eval_count": "9", "eval_count": True}, (10, 2, 0), True),
        ({"prompt_eval_count": -1, "eval_count": 4.5}, (10, 2, 0), True),
        ({"prompt_eval_count": 2**64 - 1, "eval_count": 10**12 + 1}, (10, 2, 0), True),
    ],
)
def test_what_was_not_counted_is_estimated_and_says_so(
    counts: dict[str, Any], tokens: tuple[int, int, int], estimated: bool
) -> None:
    """A missing count is not zero: it would make the request look free."""
    request: Request = ask(user("x" * 40), stream=False)
    usage = whole(done(message={"content": "12345678"}, **counts), request)[-1]
    assert isinstance(usage, Usage)
    assert (usage.tokens.prompt, usage.tokens.completion, usage.tokens.cache_read) == tokens
    assert usage.estimated is estimated
    assert usage.details == counts
