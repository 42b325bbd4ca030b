"""The other clients people use: the synchronous SDK and its helpers, LangChain, curl; and the rarer parameters."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import openai
import pytest
import pytest_asyncio
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import OpenAI
from pydantic import BaseModel, SecretStr

from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.server import simulate
from tests.flows.service import KINDS, MODELS, Service, gateway, over, upstream
from tests.flows.test_chat import PIXEL, TIME, WEATHER, ask

T = TypeVar("T")
pytestmark = pytest.mark.asyncio(loop_scope="module")
each_kind = pytest.mark.parametrize("kind", KINDS)


class Person(BaseModel):
    name: str
    age: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with over(Path(tmp_path_factory.mktemp("clients")), KINDS) as running:
        yield running


async def sync(service: Service, use: Callable[[OpenAI], T]) -> T:
    """Runs code of the synchronous SDK in a thread of its own."""

    def run() -> T:
        with OpenAI(base_url=f"{service.url}/v1", api_key="any", max_retries=0) as client:
            return use(client)

    return await asyncio.to_thread(run)


# --- the synchronous SDK --------------------------------------------------------------------------------------------


@each_kind
async def test_sync_text_and_stream(service: Service, kind: str) -> None:
    """Most scripts are written without async."""
    model = MODELS[kind]

    def use(client: OpenAI) -> tuple[str | None, str, int]:
        whole = client.chat.completions.create(model=model, messages=ask("Hello!"))
        stream = client.chat.completions.create(
            model=model, messages=ask("Hello!"), stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        return whole.choices[0].message.content, text, sum(chunk.usage is not None for chunk in chunks)

    whole, text, usages = await sync(service, use)
    assert whole == text and "You said: Hello!" in text and usages == 1


@each_kind
async def test_sync_stream_helper(service: Service, kind: str) -> None:
    """`client.chat.completions.stream()`, which is far stricter than plain iteration: text, tools, a parsed schema."""
    model = MODELS[kind]

    def use(client: OpenAI) -> tuple[list[str], Any, Any]:
        with client.chat.completions.stream(model=model, messages=ask("Hello!")) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
        with client.chat.completions.stream(
            model=model, messages=ask('call weather({"city": "Oslo"}) and call time'), tools=[WEATHER, TIME]
        ) as stream:
            calls = stream.get_final_completion().choices[0].message.tool_calls
        with client.chat.completions.stream(model=model, messages=ask("A person"), response_format=Person) as stream:
            parsed = stream.get_final_completion().choices[0].message.parsed
        return deltas, calls, parsed

    deltas, calls, parsed = await sync(service, use)
    assert "You said: Hello!" in "".join(deltas)
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("weather", {"city": "Oslo"}),
        ("time", {}),
    ]
    assert isinstance(parsed, Person)


@each_kind
async def test_sync_parse(service: Service, kind: str) -> None:
    """Pydantic in, a checked object out."""
    model = MODELS[kind]

    def use(client: OpenAI) -> Person | None:
        reply = client.chat.completions.parse(model=model, messages=ask("A person"), response_format=Person)
        return reply.choices[0].message.parsed

    assert isinstance(await sync(service, use), Person)


@each_kind
async def test_async_helper_sees_reasoning_and_usage(service: Service, kind: str) -> None:
    """The asynchronous helper adds up what it streams to the same completion as the JSON reply."""
    model, messages = MODELS[kind], ask("Think sim:reason")
    client = service.openai()
    async with client.chat.completions.stream(
        model=model, messages=messages, reasoning_effort="high", stream_options={"include_usage": True}
    ) as stream:
        final: Any = await stream.get_final_completion()
    whole = await client.chat.completions.create(model=model, messages=messages, reasoning_effort="high")
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert (
        final.choices[0].message.reasoning_content == (whole.choices[0].message.model_extra or {})["reasoning_content"]
    )
    assert final.usage.total_tokens == (whole.usage and whole.usage.total_tokens)


async def test_models(service: Service) -> None:
    """What a client's model picker shows; ids contain slashes."""

    def use(client: OpenAI) -> tuple[list[str], Any]:
        return [model.id for model in client.models.list()], client.models.retrieve(MODELS["vllm"])

    ids, one = await sync(service, use)
    assert {"auto", "tierway/static", *MODELS.values()} <= set(ids)
    assert one.id == MODELS["vllm"] and one.model_extra["tierway"]["local"] is True


# --- rarer parameters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vllm", "openai"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_several_choices(service: Service, kind: str, streamed: bool) -> None:
    """`n` answers come apart, each whole."""
    create = service.openai().chat.completions.create
    texts = ["", ""]
    reply: Any = await create(model=MODELS[kind], messages=ask("Twice"), n=2, stream=streamed)
    if streamed:
        async for chunk in reply:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    else:
        texts = [choice.message.content for choice in reply.choices]
    assert "(choice 2)" in texts[1] and "(choice" not in texts[0] and "You said: Twice" in texts[0]


@pytest.mark.parametrize("kind", ["ollama", "anthropic"])
async def test_several_choices_where_there_is_one(service: Service, kind: str) -> None:
    """One answer where two were asked for would be a surprise in somebody's loop: it is refused, and named."""
    with pytest.raises(openai.BadRequestError) as caught:
        await service.openai().chat.completions.create(model=MODELS[kind], messages=ask("Twice"), n=2)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "n")


async def test_auto_finds_who_can(service: Service) -> None:
    """`auto` goes round the models that cannot do it."""
    reply = await service.openai().chat.completions.create(model="auto", messages=ask("Twice"), n=2)
    assert len(reply.choices) == 2


@pytest.mark.parametrize("kind", ["ollama", "vllm", "openai"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_logprobs(service: Service, kind: str, streamed: bool) -> None:
    """Evaluations that score tokens get one entry per token, with its alternatives, in the answer's order."""
    create = service.openai().chat.completions.create
    reply: Any = await create(model=MODELS[kind], messages=ask("Sure?"), logprobs=True, top_logprobs=2, stream=streamed)
    choices = [choice async for chunk in reply for choice in chunk.choices] if streamed else reply.choices
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content or ()]
    text = "".join((choice.delta if streamed else choice.message).content or "" for choice in choices)
    assert "".join(token.token for token in tokens) == text
    assert all(len(token.top_logprobs) == 2 and token.logprob < 0 for token in tokens)


async def test_files_reach_claude(service: Service) -> None:
    """A PDF goes to who can read it, by name or by `auto`; others refuse it instead of leaving it out."""
    pdf = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.4 simulated").decode()
    content: Any = [
        {"type": "text", "text": "What does it say?"},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": pdf}},
    ]
    create = service.openai().chat.completions.create
    for model in (MODELS["anthropic"], "auto"):
        reply = await create(model=model, messages=[{"role": "user", "content": content}])
        assert "I see 1 file" in (reply.choices[0].message.content or "")
    with pytest.raises(openai.BadRequestError) as caught:
        await create(model=MODELS["ollama"], messages=[{"role": "user", "content": content}])
    assert caught.value.code == "unsupported_parameter"


@each_kind
@pytest.mark.parametrize("streamed", [True, False])
async def test_legacy_functions(service: Service, kind: str, streamed: bool) -> None:
    """Programs from before tools still get their calls."""
    create = service.openai().chat.completions.create
    reply: Any = await create(
        model=MODELS[kind],
        messages=ask('call weather({"city": "Rome"})'),
        functions=[WEATHER["function"]],
        stream=streamed,
    )
    if streamed:
        choices = [choice async for chunk in reply for choice in chunk.choices]
        calls = [choice.delta.function_call for choice in choices if choice.delta.function_call]
        name, arguments = ("".join(getattr(call, word) or "" for call in calls) for word in ("name", "arguments"))
        finish = choices[-1].finish_reason
    else:
        call, finish = reply.choices[0].message.function_call, reply.choices[0].finish_reason
        name, arguments = call.name, call.arguments
    assert (name, json.loads(arguments), finish) == ("weather", {"city": "Rome"}, "function_call")


# --- embeddings -----------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedders(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    behaviour = Behaviour((SimModel("sim-embed", dimensions=64, abilities=frozenset()),))
    folder = Path(tmp_path_factory.mktemp("embedders"))
    async with simulate("ollama", behaviour) as ollama, simulate("openai", behaviour) as other:
        upstreams = {"ollama": upstream(ollama), "openai": upstream(other)}
        async with gateway(folder, upstreams, {"ollama": ollama, "openai": other}) as running:
            yield running


@pytest.mark.parametrize(
    ("model", "size"), [("ollama/sim-embed", 16), ("openai/sim-embed", 16), ("tierway/static", 64)]
)
async def test_embeddings(embedders: Service, model: str, size: int) -> None:
    """The same vectors as floats and as base64 (what the SDK asks for by itself), in the order of the texts, of the
    size asked for."""
    create = embedders.openai().embeddings.create
    texts = ["the cat sat", "stock markets fell", "a cat was sitting"]
    packed = [entry.embedding for entry in (await create(model=model, input=texts)).data]
    reply = await create(model=model, input=texts, encoding_format="float")
    plain = [entry.embedding for entry in reply.data]
    assert [entry.index for entry in reply.data] == [0, 1, 2] and reply.usage.prompt_tokens > 0
    assert all(
        math.isclose(a, b, abs_tol=1e-6) for x, y in zip(packed, plain, strict=True) for a, b in zip(x, y, strict=True)
    )
    [alone] = [entry.embedding for entry in (await create(model=model, input=texts[1], encoding_format="float")).data]
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(alone, plain[1], strict=True))
    small = (await create(model=model, input="short", dimensions=size)).data[0].embedding
    assert len(small) == size < len(plain[0])


async def test_embeddings_of_langchain(embedders: Service, wires: dict[str, Any]) -> None:
    """Many texts at once, the way its vector stores send them."""
    embeddings = OpenAIEmbeddings(
        model="tierway/static", base_url=f"{embedders.url}/v1", check_embedding_ctx_length=False, **wires
    )
    vectors = await embeddings.aembed_documents([f"text {number}" for number in range(50)])
    assert len(vectors) == 50 and len({len(vector) for vector in vectors}) == 1


# --- LangChain ------------------------------------------------------------------------------------------------------


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wires() -> AsyncIterator[dict[str, Any]]:
    """LangChain's own HTTP clients are never closed; these are."""
    with httpx2.Client() as sync_wire:
        async with httpx2.AsyncClient() as async_wire:
            yield {"http_client": sync_wire, "http_async_client": async_wire, "api_key": SecretStr("any")}


@pytest.fixture
def langchain(service: Service, wires: dict[str, Any]) -> Callable[..., ChatOpenAI]:
    def make(kind: str, **options: Any) -> ChatOpenAI:
        return ChatOpenAI(model=MODELS[kind], base_url=f"{service.url}/v1", max_retries=0, **wires, **options)

    return make


@each_kind
async def test_langchain_invoke_and_stream(langchain: Callable[..., ChatOpenAI], kind: str) -> None:
    """Chains work unchanged: whole, streamed with its usage added up, and without async."""
    model = langchain(kind, stream_usage=True)
    whole = await model.ainvoke("Hello!")
    total: AIMessageChunk | None = None
    async for chunk in model.astream("Hello!"):
        total = chunk if total is None else total + chunk
    assert total is not None and total.content == whole.content and "You said: Hello!" in str(whole.content)
    assert whole.usage_metadata is not None and total.usage_metadata is not None
    assert total.usage_metadata["total_tokens"] == whole.usage_metadata["total_tokens"] > 0
    assert (await asyncio.to_thread(model.invoke, "Hello!")).content == whole.content


@each_kind
async def test_langchain_agent_round_trip(langchain: Callable[..., ChatOpenAI], kind: str) -> None:
    """A call, its result, and an answer that uses it."""
    model = langchain(kind).bind_tools([weather])
    messages: list[Any] = [HumanMessage('What is it like? call weather({"city": "Paris"})')]
    called = await model.ainvoke(messages)
    [call] = called.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})
    messages += [called, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    assert "sunny in Paris" in str((await model.ainvoke(messages)).content)


@each_kind
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_langchain_structured_output(langchain: Callable[..., ChatOpenAI], kind: str, method: Any) -> None:
    """`with_structured_output`, either way LangChain does it. Where a call cannot be forced, it is refused."""
    structured = langchain(kind).with_structured_output(Person, method=method)
    if kind in ("ollama", "anthropic") and method == "function_calling":
        with pytest.raises(openai.BadRequestError):
            await structured.ainvoke("A person")
    else:
        assert isinstance(await structured.ainvoke("A person"), Person)


async def test_langchain_images(langchain: Callable[..., ChatOpenAI]) -> None:
    """A picture in LangChain's own words reaches the model."""
    content: Any = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    assert "1 image" in str((await langchain("ollama").ainvoke([HumanMessage(content)])).content)


# --- curl -----------------------------------------------------------------------------------------------------------


async def curl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--max-time", "10", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    return out.decode()


@each_kind
async def test_curl(service: Service, kind: str) -> None:
    """The line from the README, with and without a content type, and with a body that curl asks leave to send."""
    url = f"{service.url}/v1/chat/completions"
    body = json.dumps({"model": MODELS[kind], "messages": [{"role": "user", "content": "Hello!"}]})
    for extra in ((), ("-H", "content-type: application/json"), ("-H", "expect: 100-continue")):
        reply = json.loads(await curl(url, *extra, "-d", body))
        assert "You said: Hello!" in reply["choices"][0]["message"]["content"]
    streamed = await curl(url, "-N", "-i", "-d", body[:-1] + ', "stream": true}')
    head, _, events = streamed.partition("\r\n\r\n")
    assert "content-type: text/event-stream" in head and "x-accel-buffering: no" in head
    assert f"x-tierway-model: {MODELS[kind]}" in head
    assert events.endswith("data: [DONE]\n\n")
    assert all(event.startswith("data: ") and "\n" not in event for event in events.split("\n\n") if event)


async def test_curl_a_large_body(service: Service, tmp_path: Path) -> None:
    """Curl waits for leave before a large body; without an answer it would hang for a second each time."""
    body = json.dumps({"model": MODELS["vllm"], "messages": [{"role": "user", "content": "word " * 40_000}]})
    path = tmp_path / "body.json"
    path.write_text(body)
    reply = json.loads(await curl(f"{service.url}/v1/chat/completions", "--data-binary", f"@{path}"))
    assert reply["usage"]["prompt_tokens"] >= 40_000
