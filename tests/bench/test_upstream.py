"""Both upstreams understand what the workloads ask of them, on every wire, so that no gateway is blamed for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import pytest
from pytest import FixtureRequest

from app.core.clock import SystemClock
from bench.upstream import HOST, KINDS, SERVERS
from bench.workloads import PACED, PAUSES, QUICK

PATHS = {
    "openai": "/v1/chat/completions",
    "vllm": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "ollama": "/api/chat",
}
HEADERS = {"x-api-key": "sk", "anthropic-version": "2023-06-01"}


@pytest.fixture(params=sorted(SERVERS))
async def addresses(request: FixtureRequest) -> AsyncIterator[Mapping[str, str]]:
    async with contextlib.AsyncExitStack() as stack:
        yield await SERVERS[request.param](stack, 0)


def body(model: str, tokens: int, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"hello sim:tokens={tokens}"}]
    return {"model": model, "messages": messages, "stream": stream, "max_tokens": 1_000}


async def post(url: str, **how: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.post(url, headers=HEADERS, **how)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_wire_answers_with_as_many_tokens_as_asked(addresses: Mapping[str, str], kind: str) -> None:
    """A shorter stream would be less work for whoever relays it."""
    url = addresses[kind] + PATHS[kind]
    whole = await post(url, json=body(QUICK, 20, stream=False))
    assert whole.status_code == 200 and len(whole.json()) > 2
    short = await post(url, json=body(QUICK, 20, stream=True))
    long = await post(url, json=body(QUICK, 30, stream=True))
    assert len(long.text.strip().splitlines()) - len(short.text.strip().splitlines()) in (10, 20, 30)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_model_is_listed(addresses: Mapping[str, str], kind: str) -> None:
    """Tierway asks its upstreams what there is; a model that is not listed cannot be asked for."""
    path = "/api/tags" if kind == "ollama" else "/v1/models"
    async with httpx2.AsyncClient(trust_env=False) as client:
        reply = await client.get(addresses[kind] + path, headers=HEADERS)
    models = reply.json()["models" if kind == "ollama" else "data"]
    assert {model.get("id", model.get("name")).removesuffix(":latest") for model in models} == set(PAUSES)


async def test_a_paced_model_takes_its_time(addresses: Mapping[str, str]) -> None:
    clock = SystemClock()
    began = clock.monotonic()
    await post(addresses["openai"] + PATHS["openai"], json=body(PACED, 6, stream=True))
    assert clock.monotonic() - began >= 5 * PAUSES[PACED] * 0.9


async def test_the_mock_says_what_it_cannot_answer() -> None:
    async with contextlib.AsyncExitStack() as stack:
        address = (await SERVERS["mock"](stack, 0))["openai"]
        assert (await post(address + "/nowhere", content=b"")).status_code == 404
        for wrong in (b"{", b"[]", b"{}"):
            assert (await post(address + PATHS["openai"], content=wrong)).status_code == 400


async def test_the_mock_serves_requests_that_come_together_and_in_pieces() -> None:
    """Gateways cut and join what they write as they like."""
    async with contextlib.AsyncExitStack() as stack:
        address = (await SERVERS["mock"](stack, 0))["openai"]
        reader, writer = await asyncio.open_connection(HOST, int(address.rpartition(":")[2]))
        content = b'{"model": "bench-quick", "messages": []}'
        request = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
        writer.write(request + request[:70])
        await asyncio.sleep(0.02)
        writer.write(request[70:])
        first = await reader.readuntil(b"}}")
        second = await reader.readuntil(b"}}")
        assert first == second and b"200 OK" in first
        writer.close()
        await writer.wait_closed()
