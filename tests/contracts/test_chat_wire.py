"""The dialect as a whole: recorded conversations through both halves, and the official client at the end."""

from __future__ import annotations

import itertools
from typing import Any

import httpx2
import openai
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Incomplete
from app.core.events import Event, Start, Text, fold
from app.core.request import Request
from app.wire import chat
from app.wire.codec import ClientCodec, UpstreamCodec
from tests.wire.chat_cases import (
    Conversation,
    as_one,
    ask,
    bare,
    conversations,
    datas,
    expected,
    served,
    summary,
    tokens,
    written,
)

CASES = conversations()
every_conversation = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def test_the_module_is_both_halves_of_a_codec() -> None:
    halves: tuple[UpstreamCodec, ClientCodec] = (chat, chat)
    assert all(halves)


@every_conversation
def test_a_stream_comes_to_what_the_server_said(case: Conversation) -> None:
    answer = fold(case.events())
    assert summary(answer) == expected(case, answer)
    assert tokens(answer) == case.usage


@every_conversation
def test_an_unstreamed_reply_comes_to_the_same_as_the_stream(case: Conversation) -> None:
    """A client that turns streaming on or off must not get another answer."""
    streamed, whole = bare(case.events()), bare(case.whole())
    assert whole.choices == [
        # Azure and vLLM put other unknown fields on a whole choice than on its last chunk.
        choice if choice.finish_extra == other.finish_extra else _with_extra(choice, other)
        for choice, other in zip(streamed.choices, whole.choices, strict=True)
    ]
    if case.usage is not None:
        assert tokens(whole) == tokens(streamed)


def _with_extra(choice: Any, other: Any) -> Any:
    choice.finish_extra = other.finish_extra
    return choice


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CASES), st.lists(st.integers(0, 4_000), max_size=10))
def test_the_same_events_however_the_bytes_arrive(case: Conversation, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(case.stream)) for cut in cuts), len(case.stream)]
    assert as_one(case.events([case.stream[a:b] for a, b in itertools.pairwise(edges)])) == as_one(case.events())


@every_conversation
def test_the_same_events_byte_by_byte(case: Conversation) -> None:
    assert as_one(case.events([case.stream[i : i + 1] for i in range(len(case.stream))])) == as_one(case.events())


@every_conversation
def test_a_stream_cut_anywhere_before_its_finish_never_looks_whole(case: Conversation) -> None:
    """A truncated answer must end in an error, or the client takes half a sentence for the whole."""
    marker = max(
        case.stream.find(b'"finish_reason":"' + word) for word in (b"stop", b"length", b"tool", b"func", b"rep")
    )
    for cut in range(0, marker, 97):
        with pytest.raises(Incomplete):
            case.events([case.stream[:cut]])


# --- the official client --------------------------------------------------------------------------------------------


def client(body: bytes, content_type: str) -> openai.OpenAI:
    """The SDK, fed with our bytes in awkward pieces."""

    def answer(_request: httpx2.Request) -> httpx2.Response:
        pieces = [body[i : i + 777] for i in range(0, len(body), 777)]
        return httpx2.Response(200, headers={"content-type": content_type}, stream=httpx2.ByteStream(b"".join(pieces)))

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(api_key="k", base_url="http://gateway/v1", http_client=http, max_retries=0)


def as_seen(choice: Any) -> dict[str, Any]:
    message = choice.message
    calls = [
        [call.id, call.function.name, call.function.arguments]
        if call.type == "function"
        else [call.id, call.custom.name, call.custom.input]
        for call in message.tool_calls or []
    ]
    return {
        "text": message.content or None,
        "finish": choice.finish_reason,
        "reasoning": getattr(message, "reasoning_content", None) or "",
        "refusal": message.refusal or None,
        "calls": calls,
    }


def through(events: list[Event], request: Request) -> list[dict[str, Any]]:
    """What the SDK's accumulating stream makes of what we send."""
    body = written(events, request)
    arguments: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Go."}]}
    with client(body, "text/event-stream") as sdk, sdk.chat.completions.stream(**arguments) as stream:
        for _ in stream:
            pass
        completion = stream.current_completion_snapshot  # the final one refuses cut answers
    assert (completion.usage is not None) == request.include_usage
    return [as_seen(choice) for choice in completion.choices]


# The official client's own accumulator does not know custom tools; a missing usage is the gateway's to estimate.
ACCUMULATED = [case for case in CASES if case.name != "openai_custom_tool" and case.usage is not None]
every_accumulated = pytest.mark.parametrize("case", ACCUMULATED, ids=[case.name for case in ACCUMULATED])


@every_accumulated
@pytest.mark.parametrize("usage", [False, True])
def test_the_official_client_reads_our_stream(case: Conversation, usage: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    events = case.events(**options)
    answer = fold(events)
    assert through(events, case.asked(stream=True, **options)) == expected(case, answer)


@every_accumulated
@pytest.mark.parametrize("usage", [False, True])
def test_the_official_client_reads_a_stream_made_of_a_whole_reply(case: Conversation, usage: bool) -> None:
    """A server that cannot stream still serves clients that do."""
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    events = case.whole(**options)
    assert through(events, case.asked(stream=True, **options)) == expected(case, fold(events))


@every_conversation
@pytest.mark.parametrize("way", ["stream", "whole"])
def test_the_official_client_reads_our_json(case: Conversation, way: str) -> None:
    events = case.events() if way == "stream" else case.whole()
    answer = fold(events)
    body = chat.write_reply(answer, case.asked())
    with client(body, "application/json") as sdk:
        completion = sdk.chat.completions.create(model="auto", messages=[{"role": "user", "content": "Go."}])
    assert [as_seen(choice) for choice in completion.choices] == expected(case, answer)
    assert completion.model == "gpt-6-luna"
    if case.usage is not None:
        assert completion.usage is not None
        assert [completion.usage.prompt_tokens, completion.usage.completion_tokens] == case.usage[:2]


@every_conversation
def test_what_we_write_we_read_again(case: Conversation) -> None:
    """A gateway may stand behind a gateway: our own halves must understand each other."""
    request = case.asked(stream=True, stream_options={"include_usage": True})
    events = case.events(stream_options={"include_usage": True})
    start = events[0]
    assert isinstance(start, Start)
    start.served = served()
    again = Conversation("again", case.request, written(events, request), {}, case.choices, case.usage)
    first, second = fold(events), fold(again.events())
    assert summary(second) == summary(first)
    assert tokens(second) == tokens(first)


@every_conversation
def test_every_chunk_has_the_same_head_and_one_line(case: Conversation) -> None:
    request = case.asked(stream=True)
    *chunks, done = datas(written(case.events(), request))
    assert done == "[DONE]"
    assert len({(item["id"], item["created"], item["model"], item["object"]) for item in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert sum("role" in choice["delta"] for item in chunks for choice in item["choices"]) == request.n
    assert all(item["choices"] for item in chunks), "without include_usage there is no usage chunk"


def test_plain_text_is_passed_on_as_the_bytes_it_came_in() -> None:
    """The common chunk costs no encoding, and fields that nobody here knows reach the client."""
    case = next(case for case in CASES if case.name == "openai_text")
    events = case.events()
    pieces = [event for event in events if isinstance(event, Text)]
    assert sum(piece.pieces for piece in pieces) == 3 and all(piece.raw is not None for piece in pieces)
    body = written(events, case.asked(stream=True))
    for piece in pieces:
        assert piece.raw is not None and b"data: " + piece.raw + b"\n\n" in case.stream
        assert b"data: " + piece.raw + b"\n\n" in body
    assert b'"obfuscation":"aXk9"' in body


def test_unknown_fields_of_a_whole_reply_reach_the_client() -> None:
    case = next(case for case in CASES if case.name == "azure_text")
    body = orjson.loads(chat.write_reply(fold(case.whole()), ask()))
    assert body["prompt_filter_results"] == case.reply["prompt_filter_results"]
