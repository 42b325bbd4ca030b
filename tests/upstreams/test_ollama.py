"""The adapter against a small server that speaks Ollama's wire over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from aiohttp import web

from app.core import errors
from app.core.card import Ability, Card
from app.core.events import Answer, Start, fold
from app.core.messages import Message, TextPart
from app.core.money import FREE
from app.core.request import EmbeddingRequest, Request, Terms
from app.core.upstream import Upstream
from app.upstreams.http import Clocks, Transport
from app.upstreams.ollama import OllamaUpstream, abilities_of, window_of
from app.wire.ollama.models import Shown

TERMS = Terms("req-1", "req-1", trace_parent="00-1-2-01")
CARD = Card(
    id="ollama/rnj-1",
    name="rnj-1",
    upstream="ollama",
    kind="ollama",
    local=True,
    abilities=frozenset({Ability.CHAT}),
    context_window=4096,
    quirks={"num_ctx": 4096},
)
SHOWN = Shown(40_960, None, None, frozenset({"completion"}), None, None, None, None, None, False, False)
LINES = [
    {"message": {"role": "assistant", "content": "Hel"}, "done": False},
    {"message": {"role": "assistant", "content": "lo"}, "done": False},
    {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", "prompt_eval_count": 9},
]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeOllama:
    """`answers` maps paths to (status, body) or to a handler; `asked` remembers what came."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "/api/ps": (200, {"models": [{"name": "rnj-1:latest", "context_length": 4096}]}),
            "/api/version": (200, {"version": "0.33.2"}),
            "/api/chat": self.chat,
        }
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.load_seconds = 0.0

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _, _ in self.asked)

    def body(self, path: str) -> Any:
        return next(body for asked, _, body in reversed(self.asked) if asked == path)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = orjson.loads(raw) if raw else None
        self.asked.append((request.path, {name.lower(): value for name, value in request.headers.items()}, body))
        answer = self.answers.get(request.path, (404, {"error": "404 page not found"}))
        if callable(answer):
            response: web.StreamResponse = await answer(request)
            return response
        status, reply = answer
        return web.json_response(reply(body) if callable(reply) else reply, status=status)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if not orjson.loads(await request.read())["stream"]:
            return web.json_response({**LINES[2], "message": {"content": "Hello"}})
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await asyncio.sleep(self.load_seconds)
        await response.prepare(request)
        for line in LINES:
            await response.write(orjson.dumps(line) + b"\n")
        return response


@contextlib.asynccontextmanager
async def serve(fake: FakeOllama) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@pytest.fixture
def fake() -> FakeOllama:
    return FakeOllama()


@pytest.fixture
async def url(fake: FakeOllama) -> AsyncIterator[str]:
    async with serve(fake) as base_url:
        yield base_url


def ask(text: str = "Hi", *, stream: bool = True) -> Request:
    said = (Message("user", (TextPart(text),)),)
    return Request("rnj-1", said, TERMS, "chat", {}, stream=stream, input_bytes=len(text), hints={"user": "u"})


async def answer(upstream: OllamaUpstream, request: Request | None = None, card: Card = CARD) -> Answer:
    async with contextlib.aclosing(upstream.stream(request or ask(), card)) as events:
        return fold([event async for event in events])


async def test_a_question_is_answered_streamed_and_whole(fake: FakeOllama, url: str, transport: Transport) -> None:
    upstream = OllamaUpstream("ollama", transport, base_url=f"{url}/v1/", api_key="secret")
    satisfied: Upstream = upstream
    assert (satisfied.name, satisfied.kind, satisfied.local) == ("ollama", "ollama", True)
    streamed, whole = await answer(upstream), await answer(upstream, ask(stream=False))
    assert streamed.choices[0].text == whole.choices[0].text == "Hello"
    assert isinstance(streamed.start, Start)
    assert streamed.start.ignored == ("user",)
    body = fake.body("/api/chat")
    assert (body["model"], body["options"], body["truncate"], body["shift"]) == (
        "rnj-1",
        {"num_ctx": 4096},
        False,
        False,
    )
    headers = next(headers for path, headers, _ in fake.asked if path == "/api/chat")
    assert headers["x-request-id"] == "req-1"
    assert headers["traceparent"] == "00-1-2-01"
    assert headers["authorization"] == "Bearer secret"


async def test_what_does_not_fit_is_the_callers_error(fake: FakeOllama, url: str, transport: Transport) -> None:
    fake.answers["/api/chat"] = (400, {"error": "the prompt is longer than the context length currently available"})
    with pytest.raises(errors.ContextLengthExceeded):
        await answer(OllamaUpstream("ollama", transport, base_url=url))


async def test_a_cut_prompt_goes_to_a_larger_model(fake: FakeOllama, url: str, transport: Transport) -> None:
    """Old servers ignore `truncate: false` and answer 200 from what was left."""
    upstream = OllamaUpstream("ollama", transport, base_url=url)
    with pytest.raises(errors.Truncated):
        await answer(upstream, ask("word " * 2_000, stream=False))
    streamed = await answer(upstream, ask("word " * 2_000))
    assert streamed.usage is not None
    assert streamed.usage.truncated


@pytest.mark.parametrize(
    "running",
    [
        (200, {"models": []}),
        (200, {"models": [{"name": "rnj-1:latest", "context_length": 8192}]}),
        (200, "rubbish"),
        (404, {"error": "404 page not found"}),
        (400, {"error": "odd"}),
    ],
)
async def test_a_cold_model_has_its_own_clock(running: Any, fake: FakeOllama, url: str, transport: Transport) -> None:
    """Loading takes minutes; with a warm model's clock the first request after a pause would always fail."""
    fake.answers["/api/ps"] = running
    fake.load_seconds = 0.3
    clocks = Clocks(first_token=0.1)
    patient = OllamaUpstream("ollama", transport, base_url=url, clocks=clocks, cold_start=5)
    assert (await answer(patient)).choices[0].text == "Hello"
    hasty = OllamaUpstream("ollama", transport, base_url=url, clocks=clocks, cold_start=0.2)
    with pytest.raises(errors.TimedOut) as caught:
        await answer(hasty)
    assert caught.value.phase == "first_token"


@pytest.mark.parametrize("window", [{"context_length": 4096}, {}])
async def test_a_warm_model_is_held_to_the_shorter_clock(
    window: dict[str, int], fake: FakeOllama, url: str, transport: Transport
) -> None:
    fake.answers["/api/ps"] = (200, {"models": [{"name": "rnj-1:latest", **window}]})
    fake.load_seconds = 1
    upstream = OllamaUpstream("ollama", transport, base_url=url, clocks=Clocks(first_token=0.1), cold_start=5)
    with pytest.raises(errors.TimedOut):
        await answer(upstream)


async def test_a_server_that_is_not_well_gets_no_patience(fake: FakeOllama, url: str, transport: Transport) -> None:
    fake.answers["/api/ps"] = (500, {"error": "broken"})
    fake.load_seconds = 1
    upstream = OllamaUpstream("ollama", transport, base_url=url, clocks=Clocks(first_token=0.1), cold_start=5)
    with pytest.raises(errors.TimedOut):
        await answer(upstream)


async def test_a_model_that_is_loading_for_one_is_cold_for_all(
    fake: FakeOllama, url: str, transport: Transport
) -> None:
    """Ollama lists a model as loaded while it still loads."""
    fake.answers["/api/ps"] = (200, {"models": []})
    fake.load_seconds = 0.4
    upstream = OllamaUpstream("ollama", transport, base_url=url, clocks=Clocks(first_token=0.15), cold_start=5)

    async def later() -> Answer:
        while not fake.count("/api/chat"):
            await asyncio.sleep(0.005)
        fake.answers["/api/ps"] = (200, {"models": [{"name": "rnj-1:latest"}]})
        return await answer(upstream)

    first, second = await asyncio.gather(answer(upstream), later())
    assert first.choices[0].text == second.choices[0].text == "Hello"
    assert fake.count("/api/ps") == 1
    with pytest.raises(errors.TimedOut):  # warm now
        await answer(upstream)


async def test_what_is_loaded_is_asked_once_in_a_while(fake: FakeOllama, url: str, transport: Transport) -> None:
    upstream = OllamaUpstream("ollama", transport, base_url=url)
    for _ in range(3):
        await answer(upstream)
    await answer(upstream, ask(stream=False))
    assert fake.count("/api/ps") == 1
    assert fake.count("/api/chat") == 4


async def test_a_failed_load_does_not_leave_the_model_cold(fake: FakeOllama, url: str, transport: Transport) -> None:
    fake.answers["/api/ps"] = (200, {"models": []})
    fake.answers["/api/chat"] = (500, {"error": "model requires more system memory"})
    upstream = OllamaUpstream("ollama", transport, base_url=url, clocks=Clocks(first_token=0.1), cold_start=5)
    with pytest.raises(errors.ServerFault):
        await answer(upstream)
    fake.answers.update({"/api/ps": (200, {"models": [{"name": "rnj-1"}]}), "/api/chat": fake.chat})
    fake.load_seconds = 1
    with pytest.raises(errors.TimedOut):
        await answer(upstream)


async def test_leaving_early_closes_the_upstream(fake: FakeOllama, url: str, transport: Transport) -> None:
    """A model must not go on writing for nobody."""
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            while True:
                await response.write(orjson.dumps(LINES[0]) + b"\n")
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
            raise

    fake.answers["/api/chat"] = endless
    upstream = OllamaUpstream("ollama", transport, base_url=url)
    async with contextlib.aclosing(upstream.stream(ask(), CARD)) as events:
        async for _ in events:
            break
    await asyncio.wait_for(gone.wait(), 5)


async def test_texts_are_embedded(fake: FakeOllama, url: str, transport: Transport) -> None:
    upstream = OllamaUpstream("ollama", transport, base_url=url)
    request = EmbeddingRequest("bge", ("a", "b"), TERMS, {"input": ["a", "b"]})
    fake.answers["/api/embed"] = (200, {"embeddings": [[1.0], [2.0]], "prompt_eval_count": 2})
    assert (await upstream.embed(request, CARD)).vectors == ((1.0,), (2.0,))
    assert fake.body("/api/embed")["truncate"] is False
    fake.answers["/api/embed"] = (400, {"error": "the input length exceeds the context length"})
    with pytest.raises(errors.ContextLengthExceeded):
        await upstream.embed(request, CARD)


QWEN = {
    "details": {"family": "qwen3", "parameter_size": "8.2B", "format": "gguf"},
    "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40_960},
    "capabilities": ["completion", "tools", "thinking", "insert"],
    "license": "Apache License\nVersion 2.0",
}
SHOWS: dict[str, Any] = {
    "qwen3:8b": QWEN,
    "small:latest": {
        "parameters": "num_ctx 2048\nnum_keep 24",
        "model_info": {},
        "details": {"parameter_size": "30.5B"},
    },
    "gpt-oss:120b-cloud": {
        "details": {"family": "gptoss", "format": ""},
        "remote_host": "https://ollama.com:443",
        "capabilities": ["completion"],
        "model_info": {"general.architecture": "gptoss", "gptoss.context_length": 131_072},
    },
    "bge": {"capabilities": ["embedding"], "model_info": {"general.architecture": "bert", "bert.context_length": 512}},
}


async def test_models_become_cards(fake: FakeOllama, url: str, transport: Transport) -> None:
    """The window told, the abilities and the range of complexity decide what a model is given to do."""
    fake.answers["/api/tags"] = (200, {"models": [*({"name": name} for name in SHOWS), {"name": "broken"}]})
    fake.answers["/api/show"] = (200, lambda body: SHOWS.get(body["model"], "rubbish"))
    upstream = OllamaUpstream("home", transport, base_url=url, num_ctx={"gpt-oss:120b-cloud": 65_536})
    cards = {card.name: card for card in await upstream.cards()}
    assert list(cards) == ["qwen3:8b", "small", "gpt-oss:120b-cloud", "bge"]
    chat = {Ability.CHAT, Ability.STOP, Ability.JSON_OBJECT, Ability.JSON_SCHEMA, Ability.LOGPROBS}
    assert cards["qwen3:8b"] == Card(
        id="home/qwen3:8b",
        name="qwen3:8b",
        upstream="home",
        kind="ollama",
        local=True,
        abilities=frozenset({*chat, Ability.TOOLS, Ability.REASONING}),
        context_window=32_768,
        price=FREE,
        complexity=(0.0, 0.4),
        parameters=8_200_000_000,
        licence="Apache License",
        quirks=cards["qwen3:8b"].quirks,
    )
    assert dict(cards["qwen3:8b"].quirks) == {"num_ctx": 32_768}
    small, cloud, bge = cards["small"], cards["gpt-oss:120b-cloud"], cards["bge"]
    assert small.abilities == chat
    assert small.quirks["num_keep"] == 24
    assert (small.context_window, small.complexity) == (2_048, (0.2, 0.7))
    assert (cloud.local, cloud.price, cloud.context_window, cloud.complexity) == (False, None, 65_536, (0.4, 0.9))
    assert cloud.quirks["think_levels"] == ("low", "medium", "high")
    assert bge.abilities == {Ability.EMBEDDINGS}
    assert (bge.context_window, bge.complexity) == (512, (0.0, 1.0))


async def test_releases_differ_in_what_they_count(fake: FakeOllama, url: str, transport: Transport) -> None:
    """Read wrongly, a cached prompt would look like a cut one, and a good answer would be thrown away."""
    mlx = {**QWEN, "details": {"format": "safetensors"}}
    fake.answers["/api/tags"] = (200, {"models": [{"name": "mlx"}]})
    fake.answers["/api/show"] = (200, mlx)
    upstream = OllamaUpstream("ollama", transport, base_url=url)
    for version, whole in (
        ({"version": "0.30.1"}, False),
        ({"version": "0.3.9"}, False),
        ({"version": "0.31.0"}, None),
    ):
        fake.answers["/api/version"] = (200, version)
        (card,) = await upstream.cards()
        assert card.quirks.get("whole_counts") is whole
        assert card.quirks["window_enforced"] is False
    fake.answers["/api/version"] = (500, {})
    (card,) = await upstream.cards()
    assert "whole_counts" not in card.quirks


async def test_a_server_without_models_is_no_fault(fake: FakeOllama, url: str, transport: Transport) -> None:
    fake.answers["/api/tags"] = (200, {"models": []})
    assert await OllamaUpstream("ollama", transport, base_url=url).cards() == ()


@pytest.mark.parametrize("tags", [(500, {}), (400, {"error": "odd"}), (200, []), (401, {"error": "unauthorized"})])
async def test_no_list_is_the_upstreams_fault(tags: Any, fake: FakeOllama, url: str, transport: Transport) -> None:
    fake.answers["/api/tags"] = tags
    with pytest.raises(errors.UpstreamFault):
        await OllamaUpstream("ollama", transport, base_url=url).cards()


async def test_models_none_of_which_can_be_shown_are_a_fault(fake: FakeOllama, url: str, transport: Transport) -> None:
    """Else a passing failure would look as if all models were gone."""
    fake.answers["/api/tags"] = (200, {"models": [{"name": "a"}, {"name": "b"}]})
    with pytest.raises(errors.UpstreamFault):
        await OllamaUpstream("ollama", transport, base_url=url).cards()


async def test_nobody_there(transport: Transport) -> None:
    upstream = OllamaUpstream("ollama", transport, base_url="http://127.0.0.1:1")
    with pytest.raises(errors.Refused):
        await answer(upstream)
    with pytest.raises(errors.Refused):
        await upstream.cards()
    await upstream.close()


@pytest.mark.parametrize(
    ("context_length", "modelfile", "configured", "told"),
    [
        (None, None, None, 4_096),
        (131_072, None, None, 32_768),
        (8_192, None, None, 8_192),
        (131_072, 16_384, None, 16_384),
        (131_072, None, 65_536, 65_536),
        (8_192, None, 65_536, 8_192),
        (None, 65_536, None, 32_768),
        (None, None, 65_536, 65_536),
    ],
)
def test_the_window_told(context_length: int | None, modelfile: int | None, configured: int | None, told: int) -> None:
    """Too small a window refuses work, too large a one does not fit the machine."""
    assert window_of(replace(SHOWN, context_length=context_length, num_ctx=modelfile), configured) == told


def test_abilities_follow_what_the_release_says() -> None:
    assert Ability.LOGPROBS not in abilities_of(SHOWN, (0, 12, 6))
    assert Ability.LOGPROBS in abilities_of(SHOWN, None)
    assert Ability.IMAGES in abilities_of(replace(SHOWN, capabilities=frozenset({"completion", "vision"})), None)
    silent = replace(SHOWN, capabilities=None)
    assert Ability.CHAT in abilities_of(silent, (0, 5, 0))
    assert abilities_of(replace(silent, pools=True), (0, 5, 0)) == {Ability.EMBEDDINGS}
