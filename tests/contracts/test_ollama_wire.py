"""The two halves against each other, and the module against the protocols of a codec."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.events import Event, Finish, Reasoning, Start, Text, ToolCall, Usage, fold
from app.core.messages import (
    Format,
    MediaPart,
    Message,
    TextPart,
    ThinkingPart,
    Tool,
    ToolResultPart,
    ToolUsePart,
)
from app.core.money import Tokens
from app.core.request import Request
from app.wire import ollama
from app.wire.codec import ClientCodec, Limits, UpstreamCodec
from tests.wire.ollama_cases import TERMS, ask, card, cut, read, whole

UPSTREAM: UpstreamCodec = ollama
CLIENT: ClientCodec = ollama

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
arguments = st.dictionaries(words, st.none() | st.booleans() | st.integers(-9, 9) | words, max_size=3)
calls = st.builds(
    lambda id_, name, given: ToolUsePart(id_, name, orjson.dumps(given).decode()), words, words, arguments
)
images = st.sampled_from(
    [
        MediaPart("image", "image/png", "iVBORw0="),
        MediaPart("image", "image/jpeg", "/9j/4AA="),
        MediaPart("image", None, "AAAA"),
    ]
)
messages = st.one_of(
    st.builds(lambda text: Message("system", (TextPart(text),)), words),
    st.builds(lambda text, more: Message("user", (TextPart(text), *more)), words, st.lists(images, max_size=2)),
    st.builds(
        lambda thought, text, made: Message("assistant", (ThinkingPart(thought), TextPart(text), *made)),
        words,
        words,
        st.lists(calls, max_size=2),
    ),
    st.builds(lambda id_, text: Message("tool", (ToolResultPart(id_, (TextPart(text),)),)), words, words),
)
requests = st.builds(
    ask,
    messages,
    messages,
    stream=st.booleans(),
    max_tokens=st.none() | st.integers(0, 999),
    stop=st.lists(words, max_size=2).map(tuple),
    tools=st.lists(st.builds(Tool, words, st.none() | words, st.just({"type": "object"})), max_size=2).map(tuple),
    format=st.sampled_from([None, Format("json_object"), Format("json_schema", {"type": "object"})]),
    effort=st.sampled_from([None, "none"]),
    logprobs=st.none() | st.integers(0, 5),
    hints=st.fixed_dictionaries({}, optional={"seed": st.integers(0, 99), "temperature": st.floats(0, 2)}),
)


@given(requests)
def test_a_server_reads_what_a_client_meant(request: Request) -> None:
    """Whatever the codec loses here, the model would never see."""
    outgoing = ollama.write_request(request, card())
    assert outgoing.ignored == ()
    back = ollama.read_request(outgoing.body, TERMS, Limits())
    assert back.messages == request.messages
    for name in ("stream", "max_tokens", "stop", "tools", "format", "effort", "logprobs", "hints"):
        assert getattr(back, name) == getattr(request, name), name
    assert back.extra == {"num_ctx": 4096, "truncate": False, "shift": False}


def answers() -> st.SearchStrategy[list[Event]]:
    made = st.lists(st.tuples(words, words, arguments), max_size=2, unique_by=lambda call: call[0])
    return st.builds(_answer, st.lists(words, max_size=3), st.lists(words, max_size=3), made, st.integers(1, 99))


def _answer(thoughts: list[str], texts: list[str], made: list[tuple[str, str, Any]], count: int) -> list[Event]:
    events: list[Event] = [Start("chatcmpl-req-1", "rnj-1", 1_700_000_000, "ollama")]
    events += [Reasoning(thought) for thought in thoughts]
    events += [Text(text) for text in texts]
    for index, (id_, name, given_) in enumerate(made):
        dumped = orjson.dumps(given_).decode()
        events += [ToolCall(index, dumped[:3], id_, name), ToolCall(index, dumped[3:])]
    if not texts and not made:
        events.append(Text(""))
    events.append(Finish("tool_calls" if made else "stop"))
    events.append(Usage(Tokens(count, count, count - 1)))
    return events


@given(answers(), st.lists(st.integers(0, 9_999), max_size=6))
def test_an_answer_survives_the_wire_streamed_and_whole(events: list[Event], places: list[int]) -> None:
    """Streamed or not, a client gets the answer that was given, wherever the network cuts it."""
    request = ask()
    writer = ollama.writer(request)
    sent = b"".join(writer.write(event) for event in events) + writer.end()
    expected = fold(events)
    streamed = fold(read(cut(sent, places)))
    unstreamed = fold(whole(ollama.write_reply(expected, request)))
    for got in (streamed, unstreamed):
        assert got.start == expected.start
        assert got.choices == expected.choices
        assert got.usage is not None
        assert expected.usage is not None
        assert got.usage.tokens == expected.usage.tokens
        assert not got.usage.estimated


@pytest.mark.parametrize("name", ollama.__all__)
def test_everything_on_offer_is_there(name: str) -> None:
    assert callable(getattr(ollama, name))
