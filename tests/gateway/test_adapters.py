"""Every kind of upstream is built from its settings and speaks to a server of its kind: addresses, keys, clocks and
windows reach the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, get_args

import orjson
import pytest
from pydantic import SecretStr

from app.config.schema import Breaker, Kind, Model, Timeouts
from app.config.settings import UpstreamSettings
from app.core.clock import SystemClock
from app.core.errors import Refused, TimedOut
from app.core.events import Answer, fold
from app.core.request import Request
from app.core.upstream import Upstream
from app.gateway.adapters import adapter, breaker_settings
from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from app.upstreams.breaker import BreakerSettings
from app.upstreams.claude import ClaudeUpstream
from app.upstreams.ollama import OllamaUpstream
from app.upstreams.openai import OpenAIUpstream
from app.upstreams.vllm import VllmUpstream
from app.wire import chat
from app.wire.codec import Limits
from tests.core.nouns import terms

KINDS = get_args(Kind)
KEY = SecretStr("secret-key")


@asynccontextmanager
async def built(settings: UpstreamSettings, notes: Mapping[str, Model] | None = None) -> AsyncIterator[Upstream]:
    upstream = adapter(settings, notes or {}, SystemClock())
    try:
        yield upstream
    finally:
        await upstream.close()


def settings(kind: Any, *urls: str, **fields: Any) -> UpstreamSettings:
    own = {"api_key": KEY, "local": kind in ("ollama", "vllm"), **fields}
    return UpstreamSettings("house", kind, urls, **own)


def asked(text: str = "hello", **fields: Any) -> Request:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 50, **fields}
    return chat.read_request(orjson.dumps(body), terms(), Limits())


async def answer(upstream: Upstream, request: Request) -> Answer:
    first, *_ = await upstream.cards()
    return fold([event async for event in upstream.stream(request, first)])


def sent(sim: Simulated, path: str) -> Any:
    """The last request to a path."""
    return next(call for call in reversed(sim.requests) if call.path == path)


@pytest.mark.parametrize(
    ("kind", "type_"),
    [("ollama", OllamaUpstream), ("vllm", VllmUpstream), ("anthropic", ClaudeUpstream), ("openai", OpenAIUpstream)],
)
async def test_each_kind_has_its_adapter(kind: str, type_: type) -> None:
    """Under the operator's name for it, and as local as the operator said, whatever is usual for the kind."""
    for local in (True, False):
        async with built(replace(settings(kind, "http://127.0.0.1:9"), local=local)) as upstream:
            assert type(upstream) is type_
            assert (upstream.name, upstream.kind, upstream.local) == ("house", kind, local)
    assert kind in KINDS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [True, False])
async def test_each_kind_lists_its_models_and_answers(kind: str, stream: bool) -> None:
    """From nothing but its settings."""
    async with simulate(kind) as sim, built(settings(kind, sim.base_url)) as upstream:
        cards = await upstream.cards()
        assert cards
        assert all(card.id == f"house/{card.name}" and card.kind == kind for card in cards)
        got = await answer(upstream, asked(stream=stream))
        assert got.choices[0].text
        assert got.choices[0].finish == "stop"


HEADERS = [
    ("ollama", "/api/chat", "authorization", "Bearer secret-key"),
    ("vllm", "/v1/chat/completions", "authorization", "Bearer secret-key"),
    ("anthropic", "/v1/messages", "x-api-key", "secret-key"),
    ("openai", "/v1/chat/completions", "authorization", "Bearer secret-key"),
]


@pytest.mark.parametrize(("kind", "path", "header", "value"), HEADERS)
async def test_our_key_goes_where_the_kind_expects_it(kind: str, path: str, header: str, value: str) -> None:
    """A key under the wrong name is a 401 for every request."""
    async with simulate(kind) as sim, built(settings(kind, sim.base_url)) as upstream:
        await answer(upstream, asked())
        assert sent(sim, path).headers[header] == value


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, path, _, _ in HEADERS if kind != "anthropic"])
async def test_without_a_key_none_is_sent(kind: str, path: str) -> None:
    """Servers that need none refuse an empty one."""
    async with simulate(kind) as sim, built(settings(kind, sim.base_url, api_key=None)) as upstream:
        await answer(upstream, asked())
        assert "authorization" not in sent(sim, path).headers


async def test_all_addresses_of_vllm_are_one_pool() -> None:
    """A second machine that gets no requests is wasted."""
    async with (
        simulate("vllm") as one,
        simulate("vllm") as other,
        built(settings("vllm", one.base_url, other.base_url)) as upstream,
    ):
        first, *_ = await upstream.cards()
        for number in range(4):
            fold([event async for event in upstream.stream(asked(f"question {number}"), first)])
        for sim in (one, other):
            assert sent(sim, "/v1/chat/completions")


NOTES = {
    "house/sim-small": Model(num_ctx=7_777),
    "other/sim-small": Model(num_ctx=1_111),
    "house/sim-embed": Model(context_window=2_222),
}


@pytest.mark.parametrize(("notes", "window"), [(NOTES, 7_777), ({"other/sim-small": Model(num_ctx=1_111)}, 32_768)])
async def test_the_window_of_a_note_is_what_ollama_opens(notes: Mapping[str, Model], window: int) -> None:
    """Ollama silently drops what does not fit; the note of another upstream's model of that name is not ours."""
    async with simulate("ollama") as sim, built(settings("ollama", sim.base_url), notes) as upstream:
        await answer(upstream, asked())
        assert sent(sim, "/api/chat").fields["options"]["num_ctx"] == window
        (small,) = [card for card in await upstream.cards() if card.name == "sim-small"]
        assert small.context_window == window


@pytest.mark.parametrize("kind", KINDS)
async def test_the_clocks_of_the_settings_are_kept(kind: str) -> None:
    """An upstream that accepts and then says nothing must not hold a request longer than the operator allows."""
    clocks = Timeouts(first_token=0.1, cold_start=0.1, total=0.2)
    async with simulate(kind) as sim, built(settings(kind, sim.base_url, timeouts=clocks)) as upstream:
        first, *_ = await upstream.cards()
        sim.fault_next("hang")
        with pytest.raises(TimedOut):
            fold([event async for event in upstream.stream(asked(), first)])


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_there_is_a_refusal(kind: str) -> None:
    async with simulate(kind) as sim:
        gone = sim.base_url
    async with built(settings(kind, gone)) as upstream:
        with pytest.raises(Refused):
            await upstream.cards()


def test_a_breaker_is_set_as_the_file_says() -> None:
    """Every number, so that none is forgotten here."""
    said = Breaker(failures=7, window=40.0, rate=0.9, open=3.0, max_open=33.0, successes=4)
    made = breaker_settings(settings("openai", "http://127.0.0.1:9", breaker=said))
    assert made == BreakerSettings(7, 40.0, 0.9, 3.0, 33.0, 4)
    assert breaker_settings(settings("openai", "http://127.0.0.1:9")) == BreakerSettings()
