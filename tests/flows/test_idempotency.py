"""The same request twice under one idempotency key, over two gateways, with the official client."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio

from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from app.store import layout
from app.store.opening import open_store
from tests.flows.service import MODELS, Service, gateway, upstream

pytestmark = pytest.mark.asyncio(loop_scope="function")

HELLO: Any = [{"role": "user", "content": "Hello, canary-prompt"}]
MODEL = MODELS["openai"]


@pytest_asyncio.fixture(loop_scope="function")
async def pair(tmp_path: Path) -> AsyncIterator[list[Service]]:
    """Two gateways over one store and one upstream."""
    async with simulate("openai") as sim:
        upstreams, sims = {"openai": upstream(sim)}, {"openai": sim}
        async with gateway(tmp_path, upstreams, sims) as one, gateway(tmp_path, upstreams, sims) as two:
            yield [one, two]


def sim_of(pair: list[Service]) -> Simulated:
    return pair[0].sims["openai"]


def answered(sim: Simulated) -> int:
    """How many chats the upstream was asked for."""
    return sum(call.path.endswith("/chat/completions") for call in sim.requests)


async def ask(service: Service, key: str, *, stream: bool = False, **more: Any) -> httpx2.Response:
    body = {"model": MODEL, "messages": HELLO, "stream": stream, **more}
    async with httpx2.AsyncClient(base_url=service.url, timeout=20) as http:
        return await http.post("/v1/chat/completions", json=body, headers={"idempotency-key": key})


@pytest.mark.parametrize("stream", [False, True])
async def test_asked_again_on_another_replica(pair: list[Service], stream: bool) -> None:
    """The connection broke after the answer: whoever asks again must not pay again."""
    first, again = [await ask(service, "k", stream=stream) for service in pair]
    assert first.status_code == again.status_code == 200 and first.content == again.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-tierway-idempotent-replay"] == first.headers["x-request-id"]
    assert answered(sim_of(pair)) == 1
    other = await ask(pair[1], "k", stream=stream, seed=5)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")


async def test_the_official_client_asks_again_until_there_is_an_answer(pair: list[Service]) -> None:
    """Its own retries carry the header, and honour what a 409 says."""
    clients = [service.openai(max_retries=5) for service in pair]
    header = {"Idempotency-Key": "mine"}
    replies = await asyncio.gather(
        *(
            client.chat.completions.create(model=MODEL, messages=HELLO, extra_headers=header)
            for client in (*clients, *clients)
        )
    )
    assert len({reply.id for reply in replies}) == 1 and answered(sim_of(pair)) == 1
    stream = await clients[0].chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, extra_headers={"Idempotency-Key": "stream"}
    )
    first = [chunk async for chunk in stream]
    again = await clients[1].chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, extra_headers={"Idempotency-Key": "stream"}
    )
    assert [chunk async for chunk in again] == first and answered(sim_of(pair)) == 2
    with pytest.raises(openai.UnprocessableEntityError):
        await clients[0].chat.completions.create(model=MODEL, messages=HELLO, seed=1, extra_headers=header)


async def test_embeddings(pair: list[Service]) -> None:
    body = {"model": "tierway/static", "input": "x"}
    async with httpx2.AsyncClient(timeout=20) as http:
        first, again = [
            await http.post(f"{service.url}/v1/embeddings", json=body, headers={"idempotency-key": "e"})
            for service in pair
        ]
    assert first.status_code == 200 and first.content == again.content
    assert "x-tierway-idempotent-replay" in again.headers


async def test_nothing_of_it_can_be_read_in_the_store_and_the_log(pair: list[Service], tmp_path: Path) -> None:
    reply = await ask(pair[0], "canary-key", stream=True)
    assert reply.status_code == 200
    async with open_store(None, tmp_path / "data") as store:
        (name,) = [key for key in await store.call("KEYS", "*") if layout.PARTITIONS["idempotency"].holds(key.decode())]
        entry = name + b"".join(await store.call("HGETALL", name))
    for word in (b"canary", reply.headers["x-request-id"].encode(), b"chat.completion"):
        assert word not in entry
    assert b"canary" not in pair[0].log.getvalue()


async def test_without_the_store_no_promise_is_made(pair: list[Service], tmp_path: Path) -> None:
    """Other requests go on."""
    [lock] = tmp_path.rglob("server.lock")
    group = int(lock.read_text().split()[0])
    os.killpg(group, signal.SIGSTOP)
    try:
        reply = await ask(pair[0], "k")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
        assert answered(sim_of(pair)) == 0
        plain = await pair[0].openai().chat.completions.create(model=MODEL, messages=HELLO)
        assert plain.choices[0].message.content
    finally:
        os.killpg(group, signal.SIGCONT)
