"""`tierway serve`: starts the gateway, in one process or several, and says where it is."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import click
import uvicorn
from uvicorn.supervisors import Multiprocess

from app import __version__
from app.api.guard import GuardedProtocol
from app.cli.options import CONFIG_OPTION, settings_of
from app.config.settings import Settings
from app.main import Application, Ready
from app.telemetry.logs import configure

KEEP_ALIVE_SECONDS: Final = 75
BACKLOG: Final = 2048
MODELS_SHOWN: Final = 6


@click.command()
@CONFIG_OPTION
def serve(config_path: Path | None) -> None:
    """Start the gateway.

    \b
    Example:
      OLLAMA_BASE_URL=http://gpu-box:11434 tierway serve
      tierway serve --config tierway.yaml
    """
    settings = settings_of(config_path)
    configure(settings.log_level, settings.log_format, sys.stderr.buffer)
    if settings.workers == 1:
        server = uvicorn.Server(_server_config(Application(settings, _announce), settings))
        server.run()
        sys.exit(0 if server.started else 3)
    _serve_many(settings)


def _serve_many(settings: Settings) -> None:
    """Workers are processes of their own, started from the environment; they share their metrics through a folder."""
    if settings.config_path is not None:
        os.environ["TIERWAY_CONFIG"] = str(settings.config_path)
    shared = tempfile.mkdtemp(prefix="tierway-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
    try:
        config = _server_config("app.main:create", settings)
        sockets = [config.bind_socket()]
        click.echo(f"Tierway {__version__}: {settings.workers} workers on {_address(settings)}")
        Multiprocess(config, sockets).run()
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def _server_config(app: Application | str, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http=GuardedProtocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(settings.streaming.grace),
    )


def _announce(ready: Ready) -> None:
    click.echo(banner(ready))
    sys.stdout.flush()
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be looked at again
    gc.set_threshold(50_000, 20, 50)


def banner(ready: Ready) -> str:
    """What a person wants to know at start: where, what answers, what is missing, and a line to try."""
    url = _address(ready.settings)
    lines = [f"Tierway {__version__} on {url}"]
    if ready.simulated:
        lines += [
            "",
            "  !! NO REAL MODEL ANSWERS: every answer below comes from the built-in SIMULATOR. !!",
            "  Start Ollama, or set OLLAMA_BASE_URL, VLLM_BASE_URL, ANTHROPIC_API_KEY or",
            "  OPENAI_COMPATIBLE_BASE_URL, and start again.",
        ]
    lines += ["", "  upstreams"]
    for found in ready.found:
        state = f"{found.models} models" if found.error is None else f"away: {found.error}"
        lines.append(f"    {found.upstream:<12} {found.kind:<10} {'local' if found.local else 'paid':<6} {state}")
    lines += ["", "  models       auto, " + ", ".join(card.id for card in ready.registry.cards[:MODELS_SHOWN])]
    if (more := len(ready.registry.cards) - MODELS_SHOWN) > 0:
        lines[-1] += f" and {more} more (GET {url}/v1/models)"
    state_of_keys = (
        "every request needs a key" if ready.keys_needed else "none needed on this machine until you make one"
    )
    lines += [f"  keys         {state_of_keys}", f"  docs         {url}/docs", "", "  Try it:", ""]
    key = " -H 'authorization: Bearer YOUR_KEY'" if ready.keys_needed else ""
    body = '{"model": "auto", "messages": [{"role": "user", "content": "Hello!"}]}'
    lines += [f"curl {url}/v1/chat/completions{key} -H 'content-type: application/json' -d '{body}'", ""]
    return "\n".join(lines)


def _address(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
