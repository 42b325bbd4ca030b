"""Starting with nothing: no configuration, no model, no key; and stopping."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from app.core.clock import SystemClock
from app.simulator.server import simulate
from tests.flows.raw import RawClient, chat, post
from tests.flows.service import KINDS, MODELS, gateway, over, running

OLLAMA = ("127.0.0.1", 11_434)
clock = SystemClock()


def ollama_runs() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(OLLAMA) == 0


@pytest.mark.skipif(ollama_runs(), reason="a real Ollama answers here")
async def test_with_nothing_at_all(tmp_path: Path) -> None:
    """`make run` on a bare machine answers within seconds, and nobody can take those answers for a model's: the list
    of models says so, every reply says so, streamed or not."""
    async with running({}, tmp_path, {}) as service:
        assert service.ready.simulated and not service.ready.keys_needed
        client = service.openai()
        models = {model.id: model.model_extra["tierway"] async for model in client.models.list() if model.model_extra}
        simulated = [name for name, about in models.items() if about.get("simulated")]
        assert len(simulated) == 3
        assert all(models[name]["state"] == "simulated" for name in simulated)
        messages: Any = [{"role": "user", "content": "Hello!"}]
        for model in ("auto", "gpt-4o-mini", "o3", *simulated):
            reply = await client.chat.completions.create(model=model, messages=messages)
            assert reply.system_fingerprint == "simulated"
            assert "You said: Hello!" in (reply.choices[0].message.content or "")
            stream = await client.chat.completions.create(model=model, messages=messages, stream=True)
            assert {chunk.system_fingerprint async for chunk in stream} == {"simulated"}
        async with httpx2.AsyncClient(base_url=service.url) as http:
            assert (await http.get("/readyz")).json()["status"] == "ready"


async def test_by_variables_alone(tmp_path: Path) -> None:
    """Each kind of server is found by its variable, several vLLM servers as one; names and aliases are as promised."""
    async with simulate("ollama") as ollama, simulate("vllm") as vllm, simulate("vllm") as more:
        async with simulate("anthropic") as claude, simulate("openai") as other:
            environ = {
                "OLLAMA_BASE_URL": ollama.base_url,
                "VLLM_BASE_URL": f"{vllm.base_url},{more.base_url}",
                "ANTHROPIC_API_KEY": "simulated",
                "ANTHROPIC_BASE_URL": claude.base_url,
                "OPENAI_COMPATIBLE_BASE_URL": other.base_url,
            }
            async with running(environ, tmp_path, {}) as service:
                client = service.openai()
                ids = {model.id async for model in client.models.list()}
                wanted = {"ollama/sim-small", "vllm/sim-medium", "claude/claude-sim-large", "openai/sim-plain"}
                assert wanted <= ids and not service.ready.simulated
                messages: Any = [{"role": "user", "content": "Hi"}]
                for _ in range(4):
                    await client.chat.completions.create(model="sim-medium", messages=messages)
                posts = [sum(call.method == "POST" for call in sim.asked) for sim in (vllm, more)]
                assert posts == [2, 2], "both servers of the pool work"
                reply = await client.chat.completions.create(model="gpt-4o", messages=messages)
                assert reply.system_fingerprint != "simulated" and reply.model == "sim-small", "local first"
                claude_call = await client.chat.completions.create(model="claude-sim-large", messages=messages)
                assert (claude_call.model_extra or {})["tierway"]["cost_usd"] is None, "an unknown price is not zero"


async def test_an_upstream_that_comes_later(tmp_path: Path) -> None:
    """Started before its model server, the gateway finds it when it comes; until then it says what is wrong."""
    async with simulate("openai") as sim:
        sim.refuse()
        upstreams = {"later": {"kind": "openai", "base_url": sim.base_url}}
        async with gateway(tmp_path, upstreams) as service, httpx2.AsyncClient(base_url=service.url) as http:
            assert (await http.get("/readyz")).status_code == 503
            body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}
            reply = await http.post("/v1/chat/completions", json=body)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "no_upstream_available")
            assert reply.headers["retry-after"] and sim.base_url not in (await http.get("/readyz")).text
            await sim.accept()
            end = clock.monotonic() + 5
            while (await http.get("/readyz")).status_code != 200:
                assert clock.monotonic() < end
                await asyncio.sleep(0.05)
            assert (await http.post("/v1/chat/completions", json=body)).status_code == 200


async def test_stopping_lets_answers_end(tmp_path: Path) -> None:
    """A deployment does not cut answers off: what runs is finished and recorded, what is new is refused, and an idle
    gateway is gone within a moment."""
    async with over(tmp_path, ["openai"]) as service:
        service.sims["openai"].fault_next("slow_drip", size=200, seconds=0.02)
        client = await RawClient.connect(service.port)
        await client.send(post(chat(MODELS["openai"], "sim:tokens=20", stream=True), x_request_id="last"))
        await client.until(b"simulated")
        service.server.should_exit = True
        received = await client.rest()
        assert b"data: [DONE]" in received
        client.vanish()
        begin = clock.monotonic()
    assert clock.monotonic() - begin < 2
    assert [line["status"] for line in service.lines() if line["request_id"] == "last"] == [200]


async def test_stopping_ends_what_does_not_end(tmp_path: Path) -> None:
    """After the grace period an answer is ended by an error event, so that nobody takes the half for the whole."""
    async with over(tmp_path, ["openai"], server_options={"timeout_graceful_shutdown": 1}) as service:
        service.sims["openai"].fault_next("stall")
        client = await RawClient.connect(service.port)
        await client.send(post(chat(MODELS["openai"], "Hi", stream=True), x_request_id="cut"))
        await client.until(b"simulated")
        service.server.should_exit = True
        received = await client.rest()
        client.vanish()
    assert b"[DONE]" not in received
    last = [line for line in received.split(b"\n") if line.startswith(b"data: ")][-1]
    assert orjson.loads(last[6:])["error"]["code"]
    lines = [line for line in service.lines() if line["request_id"] == "cut"]
    assert len(lines) == 1 and lines[0]["error_code"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_upstreams_that_restart(tmp_path: Path, streamed: bool) -> None:
    """A model server was restarted, and all connections kept to it are dead: no client notices."""
    async with over(tmp_path, KINDS) as service:
        client = await RawClient.connect(service.port)
        for kind, sim in service.sims.items():
            for _ in range(3):
                await client.send(post(chat(MODELS[kind], "Hi", stream=streamed)))
                assert (await client.reply())[0] == 200
                sim.drop_connections()
        client.vanish()
