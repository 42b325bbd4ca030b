"""The official OpenAI client against the whole gateway and every kind of upstream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, BadRequestError

from tests.flows.service import KINDS, MODELS, Service, over

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME: Any = {"type": "function", "function": {"name": "time", "description": "What time it is"}}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with over(Path(tmp_path_factory.mktemp("chat")), KINDS) as running:
        yield running


@pytest.fixture
def client(service: Service) -> AsyncOpenAI:
    return service.openai()


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
async def test_text(client: AsyncOpenAI, kind: str) -> None:
    """The first thing anybody tries."""
    reply = await client.chat.completions.create(model=MODELS[kind], messages=ask("Hello!"))
    assert "You said: Hello!" in (reply.choices[0].message.content or "")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None and reply.usage.total_tokens > 0
    assert reply.model == MODELS[kind].partition("/")[2], "the reply names the model that answered"
    assert reply.model_extra is not None and reply.model_extra["tierway"]["model"] == MODELS[kind]


@each_kind
@pytest.mark.parametrize("include_usage", [True, False])
async def test_stream_says_the_same_as_json(client: AsyncOpenAI, kind: str, include_usage: bool) -> None:
    """Streaming or not, the answer, its end and its price are the same."""
    options: Any = {"include_usage": True} if include_usage else None
    extra: Any = {"stream_options": options} if options else {}
    stream = await client.chat.completions.create(
        model=MODELS[kind], messages=ask("Tell me sim:tokens=30"), stream=True, **extra
    )
    chunks = [chunk async for chunk in stream]
    whole = await client.chat.completions.create(model=MODELS[kind], messages=ask("Tell me sim:tokens=30"))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert finishes == ["stop"]
    assert len({chunk.id for chunk in chunks}) == len({chunk.model for chunk in chunks}) == 1
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(usages) == (1 if include_usage else 0)
    if include_usage:
        assert usages[0] and whole.usage
        assert usages[0].completion_tokens == whole.usage.completion_tokens
        assert usages[0].prompt_tokens == whole.usage.prompt_tokens
    last = chunks[-1].model_extra
    assert last is not None and last["tierway"]["model"] == MODELS[kind]


@each_kind
async def test_one_tool_round_trip(client: AsyncOpenAI, kind: str) -> None:
    """An agent's loop: the call comes with its arguments, the result goes back, the answer uses it."""
    messages = ask('What is it like? call weather({"city": "Paris"})')
    first = await client.chat.completions.create(model=MODELS[kind], messages=messages, tools=[WEATHER])
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls and message.tool_calls[0].type == "function"
    call = message.tool_calls[0]
    assert call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "Paris"}
    messages += [message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    second = await client.chat.completions.create(model=MODELS[kind], messages=messages, tools=[WEATHER])
    assert "sunny" in (second.choices[0].message.content or "")


@each_kind
@pytest.mark.parametrize("streamed", [True, False])
async def test_parallel_and_argumentless_tools(client: AsyncOpenAI, kind: str, streamed: bool) -> None:
    """Two calls in one answer, one without arguments: what json.loads would choke on is "{}"."""
    messages = ask('Both please: call weather({"city": "Oslo"}) and call time')
    if streamed:
        async with client.chat.completions.stream(
            model=MODELS[kind], messages=messages, tools=[WEATHER, TIME]
        ) as stream:
            completion: Any = await stream.get_final_completion()
    else:
        completion = await client.chat.completions.create(model=MODELS[kind], messages=messages, tools=[WEATHER, TIME])
    calls = completion.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["weather", "time"]
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Oslo"}, {}]
    assert len({call.id for call in calls}) == 2


@pytest.mark.parametrize("kind", ["vllm", "openai"])
async def test_forced_tool(client: AsyncOpenAI, kind: str) -> None:
    reply = await client.chat.completions.create(
        model=MODELS[kind],
        messages=ask("Anything"),
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    assert reply.choices[0].message.tool_calls


async def test_forced_tool_is_refused_where_it_cannot_be_done(client: AsyncOpenAI) -> None:
    """Ollama has no word for it, and silently ignoring it would break agents."""
    with pytest.raises(BadRequestError) as caught:
        await client.chat.completions.create(
            model=MODELS["ollama"], messages=ask("Anything"), tools=[WEATHER], tool_choice="required"
        )
    assert caught.value.code == "unsupported_parameter" and caught.value.param == "tool_choice"


@each_kind
async def test_json_schema(client: AsyncOpenAI, kind: str) -> None:
    """Structured output parses, with the client's own helper too."""
    reply = await client.chat.completions.create(
        model=MODELS[kind],
        messages=ask("A person"),
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}},
    )
    person = json.loads(reply.choices[0].message.content or "")
    assert set(person) == {"name", "age"}


@each_kind
async def test_images(client: AsyncOpenAI, kind: str) -> None:
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    messages: Any = [{"role": "user", "content": content}]
    reply = await client.chat.completions.create(model=MODELS[kind], messages=messages)
    assert "image" in (reply.choices[0].message.content or "")


@each_kind
@pytest.mark.parametrize("streamed", [True, False])
async def test_reasoning(client: AsyncOpenAI, kind: str, streamed: bool) -> None:
    """Thinking comes as `reasoning_content`, whatever the upstream calls it."""
    messages = ask("Think sim:reason")
    if streamed:
        stream = await client.chat.completions.create(
            model=MODELS[kind], messages=messages, reasoning_effort="high", stream=True
        )
        thoughts = [
            (choice.delta.model_extra or {}).get("reasoning_content") or ""
            async for chunk in stream
            for choice in chunk.choices
        ]
        assert "".join(thoughts)
    else:
        reply = await client.chat.completions.create(model=MODELS[kind], messages=messages, reasoning_effort="high")
        assert (reply.choices[0].message.model_extra or {})["reasoning_content"]


@each_kind
async def test_stop_and_max_tokens(client: AsyncOpenAI, kind: str) -> None:
    stopped = await client.chat.completions.create(
        model=MODELS[kind], messages=ask("Count sim:tokens=40"), stop=[" three"]
    )
    assert stopped.choices[0].finish_reason == "stop" and " three" not in (stopped.choices[0].message.content or "")
    for field in ("max_tokens", "max_completion_tokens"):
        limits: Any = {field: 5}
        short = await client.chat.completions.create(model=MODELS[kind], messages=ask("Count sim:tokens=40"), **limits)
        assert short.choices[0].finish_reason == "length", field


@each_kind
async def test_unicode_is_never_split(service: Service, client: AsyncOpenAI, kind: str) -> None:
    """Characters of every width arrive whole, even byte by byte."""
    whole = await client.chat.completions.create(model=MODELS[kind], messages=ask("sim:unicode"))
    service.sims[kind].fault_next("slow_drip", size=3, seconds=0.0)
    stream = await client.chat.completions.create(model=MODELS[kind], messages=ask("sim:unicode"), stream=True)
    text = "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])
    assert text == whole.choices[0].message.content and "é" in text


@each_kind
async def test_what_is_dropped_is_named(client: AsyncOpenAI, kind: str) -> None:
    """A hint that an upstream cannot take is never dropped silently, and nothing else is named."""
    create = client.chat.completions.with_raw_response.create
    plain = await create(model=MODELS[kind], messages=ask("Hi"))
    assert "x-tierway-ignored" not in plain.headers
    hinted = await create(model=MODELS[kind], messages=ask("Hi"), logit_bias={"50256": -100})
    ignored = hinted.headers.get("x-tierway-ignored", "")
    assert ("logit_bias" in ignored) == (kind in ("ollama", "anthropic"))
