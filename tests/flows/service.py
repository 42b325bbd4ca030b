"""A whole gateway for a test: the real application on a real socket, with its own store, over simulated upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from openai import AsyncOpenAI

from app.api.guard import GuardedProtocol
from app.config.load import load
from app.main import Application, Ready
from app.simulator.server import simulate
from app.simulator.simulated import Simulated


@dataclass(slots=True)
class Service:
    """A running gateway. `sims` are its upstreams by name."""

    url: str
    sims: Mapping[str, Simulated]
    ready: Ready
    server: uvicorn.Server
    clients: list[AsyncOpenAI] = field(default_factory=list)

    def openai(self, **options: Any) -> AsyncOpenAI:
        """The official client, which does not retry, so that a test sees what the gateway said first."""
        client = AsyncOpenAI(**{"base_url": f"{self.url}/v1", "api_key": "any", "max_retries": 0, **options})
        self.clients.append(client)
        return client


@contextlib.asynccontextmanager
async def gateway(
    folder: Path,
    upstreams: Mapping[str, Mapping[str, Any]],
    sims: Mapping[str, Simulated] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    **config: Any,
) -> AsyncIterator[Service]:
    """A gateway over these upstreams (as the file writes them), with any other keys of the file."""
    file = folder / "tierway.yaml"
    file.write_text(yaml.safe_dump({"upstreams": {k: dict(v) for k, v in upstreams.items()}, **config}))
    async with running({"TIERWAY_CONFIG": str(file), **(environ or {})}, folder, sims or {}) as service:
        yield service


@contextlib.asynccontextmanager
async def running(environ: Mapping[str, str], folder: Path, sims: Mapping[str, Simulated]) -> AsyncIterator[Service]:
    """A gateway configured by an environment alone."""
    settings = load({"TIERWAY_DATA_DIR": str(folder / "data"), **environ})
    announced: list[Ready] = []
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        Application(settings, announced.append),
        http=GuardedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    server.config.load()
    task = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.005)
            assert not task.done(), "the gateway did not start"
        service = Service(f"http://127.0.0.1:{listener.getsockname()[1]}", sims, announced[0], server)
        yield service
        for client in service.clients:
            await client.close()
    finally:
        server.should_exit = True
        await task
        listener.close()


@contextlib.asynccontextmanager
async def over(folder: Path, kinds: Sequence[str], **config: Any) -> AsyncIterator[Service]:
    """A gateway over one simulated upstream of each kind, named like its kind."""
    async with contextlib.AsyncExitStack() as stack:
        sims = {kind: await stack.enter_async_context(simulate(kind)) for kind in kinds}
        upstreams = {name: upstream(sim) for name, sim in sims.items()}
        environ = {"ANTHROPIC_API_KEY": "simulated"} if "anthropic" in kinds else {}
        environ |= config.pop("environ", {})
        yield await stack.enter_async_context(gateway(folder, upstreams, sims, environ=environ, **config))


def upstream(sim: Simulated, **more: Any) -> dict[str, Any]:
    """A simulated server as the file writes an upstream."""
    key = {"api_key_env": "ANTHROPIC_API_KEY"} if sim.kind == "anthropic" else {}
    return {"kind": sim.kind, "base_url": sim.base_url, **key, **more}


MODELS = {
    "ollama": "ollama/sim-small",
    "vllm": "vllm/sim-medium",
    "anthropic": "anthropic/claude-sim-large",
    "openai": "openai/sim-plain",
}
"""The one chat model of each simulated kind, by its full id."""
KINDS = tuple(MODELS)
