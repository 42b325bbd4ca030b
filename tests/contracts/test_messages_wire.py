"""The two halves against each other, against the official client over a real socket, and against the protocols."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anthropic
import orjson
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Busy, GatewayError, InvalidValue
from app.core.events import Event, Fault, Finish, Reasoning, Start, Text, ToolCall, Usage, fold
from app.core.messages import Format, MediaPart, Message, TextPart, ThinkingPart, Tool, ToolChoice, ToolResultPart
from app.core.money import Tokens
from app.core.request import Request
from app.wire import messages
from app.wire.codec import ClientCodec, Limits, UpstreamCodec
from tests.wire.messages_cases import OLD, TERMS, ask, call, card, outgoing, said

UPSTREAM: UpstreamCodec = messages
CLIENT: ClientCodec = messages

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


# --- the halves against each other ----------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9).filter(str.strip)
ttls = st.sampled_from([None, "5m", "1h"])
texts = st.builds(TextPart, words)
media = st.sampled_from(
    [
        MediaPart("image", "image/png", "AA=="),
        MediaPart("image", url="https://example.com/a.png"),
        MediaPart("file", "application/pdf", "AA==", filename="a.pdf"),
        MediaPart("file", "text/plain", "YQ=="),
        MediaPart("file", file_id="file_1"),
    ]
)
signed = st.builds(ThinkingPart, words, words) | st.builds(lambda data: ThinkingPart("", redacted=data), words)
arguments = st.dictionaries(words, st.none() | st.integers(-9, 9) | words, max_size=2)


@st.composite
def rounds(draw: st.DrawFn, number: int) -> list[Message]:
    """A user's turn and the assistant's, with results of all its calls."""
    asked = Message("user", (*draw(st.lists(texts, min_size=1, max_size=2)), *draw(st.lists(media, max_size=2))))
    given_ = draw(st.lists(arguments, max_size=3))
    made = [call(f"id-{number}_{n}", orjson.dumps(each).decode()) for n, each in enumerate(given_)]
    answered = Message("assistant", (*draw(st.lists(signed, max_size=2)), draw(texts), *made))
    if not made:
        return [asked, answered]
    results = [
        ToolResultPart(each.id, (draw(texts), *draw(st.lists(media, max_size=1))), draw(st.booleans())) for each in made
    ]
    return [asked, answered, Message("tool", tuple(results))]


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    system = draw(st.lists(texts, max_size=2))
    turns = [message for n in range(draw(st.integers(0, 2))) for message in draw(rounds(n))]
    return [*([Message("system", tuple(system))] if system else []), *turns, Message("user", (draw(texts),))]


tools = st.lists(st.builds(Tool, st.just("f"), words, st.just(SCHEMA), st.none(), cache=ttls), max_size=1)
choices = st.none() | st.sampled_from([ToolChoice("none"), ToolChoice("required"), ToolChoice("named", ("f",))])


@settings(max_examples=80, deadline=None)
@given(conversations(), tools, choices, st.booleans(), st.sampled_from([None, "low", "max"]), st.integers(1, 64_000))
def test_a_request_that_is_written_is_read_back_the_same(
    conversation: list[Message],
    offered: list[Tool],
    choice: ToolChoice | None,
    stream: bool,
    effort: str | None,
    most: int,
) -> None:
    """What a caller said reaches the model whole: no turn, call, result or picture is lost on the way."""
    request = ask(
        *conversation,
        stream=stream,
        tools=tuple(offered),
        tool_choice=choice if offered else None,
        effort=effort,
        max_tokens=most,
        stop=("END",),
        format=Format("json_schema", SCHEMA),
    )
    again = messages.read_request(outgoing(request, OLD).body, TERMS, Limits())
    assert merged(again.messages) == merged(conversation)
    assert (again.tools, again.tool_choice) == (request.tools, request.tool_choice)
    assert (again.stream, again.max_tokens, again.effort) == (stream, most, effort)
    assert (again.stop, again.format, again.model) == (request.stop, request.format, OLD)


def merged(conversation: Sequence[Message]) -> list[Message]:
    """Neighbours of a role as one, the way the API counts turns."""
    made: list[Message] = []
    for message in conversation:
        if made and made[-1].role == message.role:
            message = Message(message.role, (*made.pop().parts, *message.parts))
        made.append(message)
    return made


def test_a_native_request_survives_the_way_through() -> None:
    body = {"model": OLD, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    request = messages.read_request(orjson.dumps(body), TERMS, Limits())
    assert orjson.loads(messages.write_request(request, card(OLD)).body) == body


# --- the official client --------------------------------------------------------------------------------------------

START = Start("msg_1", "claude-x", 1, "messages")
ANSWER: list[Event] = [
    START,
    Reasoning("Let me see."),
    Reasoning("", signature="c2ln"),
    Text("Grüße, "),
    Text("Welt 🌍"),
    ToolCall(0, "", "toolu_1", "f"),
    ToolCall(0, '{"city":'),
    ToolCall(0, '"Köln"}'),
    ToolCall(1, "{}", "toolu_2", "g"),
    Finish("tool_calls"),
    Usage(Tokens(60, 9, cache_read=20, cache_write=10, cache_write_1h=10, reasoning=4)),
]


class Server:
    """Answers everything with the same events, and remembers what it was asked."""

    def __init__(self, events: list[Event], error: tuple[int, GatewayError] | None = None) -> None:
        self.events = events
        self.error = error
        self.asked: list[Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(messages.read_request(await request.read(), TERMS, Limits()))
        if self.error is not None:
            status, error = self.error
            return web.Response(status=status, body=messages.write_error(error), content_type="application/json")
        asked = self.asked[-1]
        if not asked.stream:
            body = messages.write_reply(fold(self.events), asked)
            return web.Response(body=body, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        out = messages.writer(asked)
        for event in self.events:
            await response.write(b": ping\n\n" + out.write(event))
        await response.write(out.end())
        return response


@contextlib.asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[anthropic.AsyncAnthropic]:
    app = web.Application()
    app.router.add_post("/v1/messages", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=f"http://127.0.0.1:{port}", max_retries=0) as client:
            yield client
    finally:
        await runner.cleanup()


ASKED: dict[str, Any] = {
    "model": "claude-x",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": "Weather?"}],
    "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "low"},
}


def check(message: anthropic.types.Message) -> None:
    thinking, text, first, second = message.content
    assert thinking.type == "thinking" and (thinking.thinking, thinking.signature) == ("Let me see.", "c2ln")
    assert text.type == "text" and text.text == "Grüße, Welt 🌍"
    assert first.type == "tool_use" and (first.id, first.name, first.input) == ("toolu_1", "f", {"city": "Köln"})
    assert second.type == "tool_use" and (second.name, second.input) == ("g", {})
    assert (message.id, message.model, message.stop_reason) == ("msg_1", "claude-x", "tool_use")
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (30, 20, 10)
    assert usage.output_tokens == 9
    assert usage.output_tokens_details is not None and usage.output_tokens_details.thinking_tokens == 4


async def test_the_official_client_reads_a_reply() -> None:
    server = Server(ANSWER)
    async with client_of(server) as client:
        check(await client.messages.create(**ASKED))
    (asked,) = server.asked
    assert asked.messages == (Message("system", (TextPart("Be kind.", "5m"),)), said("user", "Weather?"))
    assert (asked.effort, [tool.name for tool in asked.tools]) == ("low", ["f"])


async def test_the_official_client_reads_a_stream() -> None:
    async with client_of(Server(ANSWER)) as client, client.messages.stream(**ASKED) as stream:
        said_ = [text async for text in stream.text_stream]
        check(await stream.get_final_message())
    assert said_ == ["Grüße, ", "Welt 🌍"]


async def test_the_official_client_can_send_back_what_it_got() -> None:
    """Thinking, calls and results return as the same parts that went out."""
    server = Server(ANSWER)
    async with client_of(server) as client:
        first = await client.messages.create(**ASKED)
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "warm"}
            for block in first.content
            if block.type == "tool_use"
        ]
        turns = [*ASKED["messages"], first.to_param(), {"role": "user", "content": results}]
        await client.messages.create(**{**ASKED, "messages": turns})
    answered, answers = server.asked[1].messages[2:]
    assert answered.parts[0] == ThinkingPart("Let me see.", "c2ln")
    assert [part.call_id for part in answers.parts if isinstance(part, ToolResultPart)] == ["toolu_1", "toolu_2"]


async def test_the_official_client_sees_a_refusal() -> None:
    events: list[Event] = [START, Text("No.", refusal=True), Finish("content_filter"), Usage(Tokens(5, 0))]
    async with client_of(Server(events)) as client:
        whole = await client.messages.create(**ASKED)
        async with client.messages.stream(**ASKED) as stream:
            streamed = await stream.get_final_message()
    for message in (whole, streamed):
        assert message.stop_reason == "refusal"
        assert message.stop_details is not None and message.stop_details.explanation == "No."


async def test_the_official_client_raises_what_breaks_a_stream() -> None:
    """Half an answer must not look like a whole one."""
    async with client_of(Server([START, Text("Half"), Fault(Busy("gone"))])) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            async with client.messages.stream(**ASKED) as stream:
                await stream.get_final_message()
    assert "gone" in str(caught.value)


async def test_the_official_client_raises_errors_by_their_kind() -> None:
    server = Server([], (400, InvalidValue("max_tokens is wrong")))
    async with client_of(server) as client:
        with pytest.raises(anthropic.BadRequestError) as caught:
            await client.messages.create(**ASKED)
    assert "max_tokens is wrong" in str(caught.value)
