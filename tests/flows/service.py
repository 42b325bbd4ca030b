"""A whole gateway for a test: the real application on a real socket, with its own store, over simulated upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import orjson
import structlog
import uvicorn
import yaml
from openai import AsyncOpenAI

from app.api.guard import GuardedProtocol
from app.assembly import Ready
from app.config.load import load
from app.main import Application
from app.simulator.behaviour import DEFAULTS, Behaviour
from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from app.telemetry.logs import configure

NO_OPTIONS: Final[Mapping[str, Any]] = {}


@dataclass(slots=True)
class Service:
    """A running gateway. `sims` are its upstreams by name; `log` is where its log goes."""

    url: str
    sims: Mapping[str, Simulated]
    ready: Ready
    server: uvicorn.Server
    log: io.BytesIO
    clients: list[AsyncOpenAI] = field(default_factory=list)

    def openai(self, **options: Any) -> AsyncOpenAI:
        """The official client, which does not retry, so that a test sees what the gateway said first."""
        client = AsyncOpenAI(**{"base_url": f"{self.url}/v1", "api_key": "any", "max_retries": 0, **options})
        self.clients.append(client)
        return client

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def lines(self, event: str = "request") -> list[dict[str, Any]]:
        """What was logged so far: the lines of finished requests, or of another event."""
        lines = [orjson.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]

    async def metric(self, name: str, /, **labels: str) -> float:
        """The sum of a metric's series that have these labels, as Prometheus would read them."""
        async with httpx2.AsyncClient() as client:
            text = (await client.get(f"{self.url}/metrics")).text
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        series = [line.rpartition(" ") for line in text.splitlines() if line.partition("{")[0].split(" ")[0] == name]
        return sum(float(value) for labels_, _, value in series if all(one in labels_ for one in wanted))


@contextlib.asynccontextmanager
async def gateway(
    folder: Path,
    upstreams: Mapping[str, Mapping[str, Any]],
    sims: Mapping[str, Simulated] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    server_options: Mapping[str, Any] = NO_OPTIONS,
    **config: Any,
) -> AsyncIterator[Service]:
    """A gateway over these upstreams (as the file writes them), with any other keys of the file."""
    text = yaml.safe_dump({"upstreams": {k: dict(v) for k, v in upstreams.items()}, **config})
    names = (f"tierway{number or ''}.yaml" for number in itertools.count())
    file = next(path for name in names if not (path := folder / name).exists() or path.read_text() == text)
    if not file.exists():  # a gateway that runs would read it again
        file.write_text(text)
    environ = {"TIERWAY_CONFIG": str(file), **(environ or {})}
    async with running(environ, folder, sims or {}, server_options) as service:
        yield service


@contextlib.contextmanager
def logged() -> Iterator[io.BytesIO]:
    """Everything that is logged meanwhile."""
    root, stream = logging.getLogger(), io.BytesIO()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    configure("info", "json", stream)
    try:
        yield stream
    finally:
        structlog.configure(**config)
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.asynccontextmanager
async def running(
    environ: Mapping[str, str],
    folder: Path,
    sims: Mapping[str, Simulated],
    server_options: Mapping[str, Any] = NO_OPTIONS,
) -> AsyncIterator[Service]:
    """A gateway configured by an environment alone."""
    environ = {"TIERWAY_DATA_DIR": str(folder / "data"), **environ}
    settings = load(environ)
    announced: list[Ready] = []
    listener = socket.create_server(("127.0.0.1", 0))
    options: dict[str, Any] = {
        "http": GuardedProtocol,
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": 2,
        **server_options,
    }
    config = uvicorn.Config(Application(settings, announced.append, lambda text: load(environ, text=text)), **options)
    server = uvicorn.Server(config)
    server.config.load()
    with logged() as log:
        task = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
        clients: list[AsyncOpenAI] = []
        try:
            while not server.started:
                await asyncio.sleep(0.005)
                assert not task.done(), "the gateway did not start"
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Service(url, sims, announced[0], server, log, clients)
        finally:
            for client in clients:
                await client.close()
            server.should_exit = True
            await task
            listener.close()


@contextlib.asynccontextmanager
async def over(
    folder: Path, kinds: Sequence[str], behaviours: Mapping[str, Behaviour] = DEFAULTS, **config: Any
) -> AsyncIterator[Service]:
    """A gateway over one simulated upstream of each kind, named like its kind."""
    async with contextlib.AsyncExitStack() as stack:
        sims = {kind: await stack.enter_async_context(simulate(kind, behaviours[kind])) for kind in kinds}
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
