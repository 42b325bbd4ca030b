"""Without these the parts are built and not joined: a gateway open to everybody, one that does not start, one that does
not stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import httpx2
import pytest
from pydantic import SecretStr

from app.assembly import Ready
from app.config.load import load
from app.config.settings import Settings, UpstreamSettings
from app.main import Application
from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from app.telemetry.logs import configure
from tests.api.wire import soon

NOWHERE = "http://127.0.0.1:1"
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}


def settings(folder: Path, *upstreams: UpstreamSettings, **more: Any) -> Settings:
    """As of an environment without a file, with these upstreams."""
    found = load({"TIERWAY_DATA_DIR": str(folder / "data")})
    return replace(found, upstreams={upstream.name: upstream for upstream in upstreams}, **more)


def ollama(url: str = NOWHERE, probed: bool = True) -> UpstreamSettings:
    return UpstreamSettings("ollama", "ollama", (url,), local=True, probed=probed)


@dataclass
class Running:
    client: httpx2.AsyncClient
    ready: list[Ready]
    said: list[Mapping[str, Any]]
    app: Application

    async def json(self, path: str, status: int = 200) -> Any:
        reply = await self.client.get(path)
        assert reply.status_code == status, reply.text
        return reply.json()


@contextlib.asynccontextmanager
async def running(settings: Settings, state: dict[str, Any] | None = None) -> AsyncIterator[Running]:
    """The application between the two halves of its life, as a server leads it through them."""
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    said: list[Mapping[str, Any]] = []
    ready: list[Ready] = []

    async def send(message: Any) -> None:
        said.append(message)

    app = Application(settings, ready.append)
    life = asyncio.create_task(app({"type": "lifespan", "state": {} if state is None else state}, heard.get, send))
    heard.put_nowait({"type": "lifespan.startup"})
    await soon(lambda: said or life.done(), 20)
    transport = httpx2.ASGITransport(cast(Any, app), raise_app_exceptions=False)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield Running(client, ready, said, app)
    finally:
        heard.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait_for(life, 15)


@pytest.fixture
async def sim() -> AsyncIterator[Simulated]:
    async with simulate("ollama") as server:
        yield server


# --- who gets in ----------------------------------------------------------------------------------------------------


async def test_nobody_opens_a_gateway_to_the_network_by_accident(tmp_path: Path) -> None:
    async with running(settings(tmp_path, ollama(), host="0.0.0.0")) as gateway:
        (message,) = gateway.said
        assert message["type"] == "lifespan.startup.failed" and not gateway.ready
        assert all(way in message["message"] for way in ("keys create", "TIERWAY_ADMIN_KEY", "TIERWAY_ALLOW_ANONYMOUS"))
    assert len(gateway.said) == 1


async def test_on_purpose_it_is_open(tmp_path: Path) -> None:
    async with running(settings(tmp_path, ollama(), host="0.0.0.0", allow_anonymous=True)) as gateway:
        assert (await gateway.client.get("/v1/models")).status_code == 200 and not gateway.ready[0].keys_needed


async def test_with_an_admin_key_it_starts_and_is_closed_until_there_are_keys(tmp_path: Path) -> None:
    boss = SecretStr("boss")
    async with running(settings(tmp_path, ollama(), host="0.0.0.0", admin_key=boss)) as gateway:
        assert gateway.ready[0].keys_needed
        for path in ("/v1/chat/completions", "/v1/embeddings"):
            assert (await gateway.client.post(path, json=CHAT)).status_code == 401
        assert (await gateway.client.get("/v1/models")).status_code == 401
        made = await gateway.client.post("/admin/keys", json={"name": "x"}, headers={"authorization": "Bearer boss"})
        secret = {"authorization": f"Bearer {made.json()['key']}"}
        assert (await gateway.client.post("/v1/chat/completions", json=CHAT, headers=secret)).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await gateway.client.get(path)).status_code == 200, "who watches over it has no key"
    # A key is protection enough, also when the admin key has gone.
    async with running(settings(tmp_path, ollama(), host="0.0.0.0")) as gateway:
        assert gateway.ready[0].keys_needed


# --- starting -------------------------------------------------------------------------------------------------------


async def test_a_store_that_cannot_be_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    async with running(settings(tmp_path, ollama())) as gateway:
        (message,) = gateway.said
        assert message["type"] == "lifespan.startup.failed" and "TIERWAY_DATA_DIR" in message["message"]


async def test_a_store_that_is_not_there_is_said_without_its_password(tmp_path: Path) -> None:
    away = SecretStr("redis://:hunter2@127.0.0.1:1/0")
    async with running(settings(tmp_path, ollama(), redis_url=away)) as gateway:
        (message,) = gateway.said
        assert message["type"] == "lifespan.startup.failed" and "hunter2" not in message["message"]


async def test_without_any_model_simulated_ones_answer_and_say_so_everywhere(tmp_path: Path) -> None:
    async with running(settings(tmp_path, ollama())) as gateway:
        (ready,) = gateway.ready
        assert ready.simulated and not ready.keys_needed
        assert {found.upstream for found in ready.found} == {"sim-ollama", "sim-vllm", "sim-claude", "tierway"}
        listed = (await gateway.json("/v1/models"))["data"]
        states = {model["id"]: model["tierway"]["state"] for model in listed if model["tierway"]["upstream"]}
        assert states.pop("tierway/static") == "ready", "the built-in embedder is real"
        assert set(states.values()) == {"simulated"} and "sim-ollama/sim-small" in states
        reply = (await gateway.client.post("/v1/chat/completions", json=CHAT)).json()
        assert reply["system_fingerprint"] == "simulated"
        assert (await gateway.json("/readyz"))["status"] == "ready"


async def test_where_somebody_named_an_upstream_nothing_is_simulated(tmp_path: Path) -> None:
    """Its absence is a fault to be seen, and not one to be covered up with invented answers."""
    async with running(settings(tmp_path, ollama(probed=False))) as gateway:
        (ready,) = gateway.ready
        assert not ready.simulated and ready.found[0].error
        state = await gateway.json("/readyz", 503)
        assert state["status"] == "not_ready" and state["checks"]["upstreams"]["ollama"] != "ok"
        assert "127.0.0.1" not in str(state), "addresses of upstreams are nobody's business"
        reply = await gateway.client.post("/v1/chat/completions", json=CHAT)
        assert reply.status_code == 503 and reply.json()["error"]["code"] == "no_upstream_available"
        embedded = await gateway.client.post("/v1/embeddings", json={"model": "tierway/static", "input": "a"})
        assert embedded.status_code == 200, "the built-in embedder needs no upstream"


async def test_what_answers_is_announced_and_served(tmp_path: Path, sim: Simulated) -> None:
    async with running(settings(tmp_path, ollama(sim.base_url))) as gateway:
        (ready,) = gateway.ready
        assert not ready.simulated and [found.upstream for found in ready.found] == ["ollama", "tierway"]
        assert ready.registry.get("ollama/sim-small") is not None
        state = await gateway.json("/readyz")
        checks = {"configuration": "ok", "store": "ok", "upstreams": {"ollama": "ok"}}
        assert state == {"status": "ready", "checks": checks}
        model = await gateway.json("/v1/models/ollama/sim-small")
        assert model["tierway"]["state"] == "ready" and model["tierway"]["price"]["input"] == 0
        assert (await gateway.client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        document = await gateway.json("/openapi.json")
        assert {"/v1/chat/completions", "/v1/embeddings", "/v1/models", "/readyz", "/admin/keys"} <= set(
            document["paths"]
        )


async def test_prices_of_the_configuration_count(tmp_path: Path) -> None:
    async with simulate("anthropic") as sim:
        claude = UpstreamSettings("claude", "anthropic", (sim.base_url,), SecretStr("k"))
        file = tmp_path / "tierway.yaml"
        file.write_text("models: {claude/claude-sim-large: {price: {input: 4, output: 20}}}")
        models = load({"TIERWAY_CONFIG": str(file)}).models
        async with running(settings(tmp_path, claude, models=models)) as gateway:
            model = await gateway.json("/v1/models/claude/claude-sim-large")
            assert model["tierway"]["price"]["output"] == 20
            reply = await gateway.client.post("/v1/chat/completions", json=CHAT | {"model": "claude/claude-sim-large"})
            assert float(reply.headers["x-tierway-cost-usd"]) > 0


async def test_engines_of_vllm_are_watched(tmp_path: Path) -> None:
    """Without the watch an engine that fell asleep is noticed by the requests that hang in it."""
    async with simulate("vllm") as sim:
        pool = UpstreamSettings("gpu", "vllm", (sim.base_url,), local=True)
        async with running(settings(tmp_path, pool)):
            names = {task.get_name() for task in asyncio.all_tasks()}
    assert {"probe gpu", "discovery", "event loop lag"} <= names


# --- what it tells --------------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Where the log goes meanwhile."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    file = tmp_path / "log"
    with file.open("wb") as stream:
        configure("info", "json", stream)
        yield file
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


async def test_every_request_leaves_a_line_and_a_count(tmp_path: Path, sim: Simulated, log: Path) -> None:
    made = settings(tmp_path, ollama(sim.base_url))
    async with running(made) as gateway:
        await gateway.client.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "mine"})
        await soon(lambda: '"request_id":"mine"' in log.read_text())
        text = (await gateway.client.get("/metrics")).text
    assert f'"config_version":"{made.version}"' in log.read_text() and log.read_text().count('"upstream answers"') == 1
    assert 'tierway_requests_total{endpoint="chat",model="ollama/sim-small"' in text
    for name in ("tierway_flag{", "tierway_store_seconds_count{", "tierway_in_flight_requests 0.0"):
        assert name in text


# --- stopping -------------------------------------------------------------------------------------------------------


LOOPS: Final = ("asyncio", "uvloop")
"""How the threads of an event loop are called that live as long as it."""


def sockets() -> int:
    return sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in _open_files())


def _open_files() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are looked up in /proc")
async def test_nothing_is_left_when_it_has_stopped(tmp_path: Path, sim: Simulated) -> None:
    """No task, socket or thread: else reloads and tests pile them up, and processes do not end."""
    threads, tasks, open_before = set(threading.enumerate()), asyncio.all_tasks(), sockets()
    async with running(settings(tmp_path, ollama(sim.base_url))) as gateway:
        await gateway.client.post("/v1/chat/completions", json=CHAT)
        await gateway.client.post("/v1/embeddings", json={"model": "tierway/static", "input": "a"})
    assert [message["type"] for message in gateway.said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    await soon(lambda: sim.open_connections == 0)
    assert asyncio.all_tasks() == tasks
    await soon(lambda: sockets() <= open_before)
    left = {thread for thread in set(threading.enumerate()) - threads if not thread.name.startswith(LOOPS)}
    await soon(lambda: not any(thread.is_alive() for thread in left))


async def test_who_stops_is_no_longer_ready_and_takes_no_more_requests(tmp_path: Path, sim: Simulated) -> None:
    """Whoever balances load learns of it while answers that are under way still end."""
    async with running(settings(tmp_path, ollama(sim.base_url))) as gateway:
        gateway.app.stopping.begun = True
        assert (await gateway.json("/readyz", 503))["checks"]["stopping"]
        assert await gateway.json("/healthz") == {"status": "ok"}
        reply = await gateway.client.post("/v1/chat/completions", json=CHAT)
        assert reply.status_code == 503 and reply.json()["error"]["code"] == "shutting_down"


async def test_a_start_that_failed_leaves_nothing_either(tmp_path: Path) -> None:
    tasks = asyncio.all_tasks()
    async with running(settings(tmp_path, ollama(), host="0.0.0.0")):
        pass
    assert asyncio.all_tasks() == tasks
