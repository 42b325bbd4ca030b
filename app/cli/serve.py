"""`tierway serve`: starts the gateway, in one process or several, and says where it is."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import click
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app import __version__
from app.api.guard import GuardedProtocol
from app.assembly import Ready, is_loopback
from app.cli.options import CONFIG_OPTION, EVERYWHERE, fail, local_url, settings_of, state_of
from app.config.later import without_effect
from app.config.settings import Settings
from app.main import Application
from app.telemetry.logs import configure, get_logger
from app.telemetry.metrics import SHARED_FOLDER, forget_worker

KEEP_ALIVE_SECONDS: Final = 75
BACKLOG: Final = 2048
MODELS_SHOWN: Final = 6
MAKE_KEY: Final = "tierway keys create --name me"
ENDINGS: Final = (signal.SIGINT, signal.SIGTERM)
FLUSH_SECONDS: Final = 5
"""What clients get to take the last bytes, once all requests are over."""
LOOK_SECONDS: Final = 0.1

log = get_logger("tierway")


@click.command(short_help="Start the gateway.")
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
    for setting, why in without_effect(settings):
        log.warning("a setting has no effect yet", setting=setting, why=why)
    listener = _bound(settings)
    settings = replace(settings, port=listener.getsockname()[1])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    if settings.workers > 1:
        sys.exit(_serve_many(settings, listener))
    _serve_alone(settings, listener)


def _bound(settings: Settings) -> socket.socket:
    """Taken first of all, so that nothing is announced that cannot be had; who comes before we are ready, waits."""
    host, port = settings.host, settings.port
    ipv6 = ":" in host
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    try:
        return socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=ipv6 and socket.has_dualstack_ipv6()
        )
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while ")[0]  # asyncio and Python say the address once more
        fail(f"Cannot listen on {host}, port {port}: {why}. TIERWAY_HOST and TIERWAY_PORT choose another.")


def _serve_alone(settings: Settings, listener: socket.socket) -> None:
    for name in ENDINGS:  # uvicorn raises them again once it has stopped in good order
        signal.signal(name, lambda number, frame: sys.exit(0))

    def announce(ready: Ready) -> None:
        app.stopping.follow(ENDINGS, settings.streaming.grace)
        _reload_on_hangup(app)
        click.echo(banner(ready))
        _settle_memory()

    app = Application(settings, announce)
    uvicorn.Server(_server_config(app, settings)).run([listener])


def _serve_many(settings: Settings, listener: socket.socket) -> int:
    """Workers are processes of their own, configured by the environment; they share their metrics through a folder."""
    with tempfile.TemporaryDirectory(prefix="tierway-metrics-", ignore_cleanup_errors=True) as shared:
        os.environ |= {SHARED_FOLDER: shared, "TIERWAY_PORT": str(settings.port)}
        if settings.config_path is not None:
            os.environ["TIERWAY_CONFIG"] = str(settings.config_path)
        workers = Workers(_server_config("app.cli.serve:worker", settings), [listener])
        workers.run()
    return workers.status


class Workers(Multiprocess):
    """uvicorn's supervisor, which also lets go of the gauges of workers that ended."""

    _seen: frozenset[int] = frozenset()

    @property
    def status(self) -> int:
        """For the exit: whether it was a worker that could not start that ended it all."""
        failed = any(process.exitcode == STARTUP_FAILURE for process in self.processes)
        return STARTUP_FAILURE if failed else 0

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        now = frozenset(process.pid for process in self.processes if process.pid is not None)
        for pid in self._seen - now:
            forget_worker(pid)
        self._seen = now

    def join_all(self) -> None:
        """Waits for the workers to end; whoever sends another signal meanwhile wants them to hurry."""
        self.signal_queue.clear()
        while running := [each for each in self.processes if each.process.is_alive()]:
            running[0].process.join(LOOK_SECONDS)
            if not set(ENDINGS).isdisjoint(self.signal_queue):
                self.signal_queue.clear()
                for each in running:
                    each.process.terminate()

    def handle_hup(self) -> None:
        """Workers reload their configuration; they are not started again, which may end in none at all."""
        for each in self.processes:
            if each.pid is not None and each.process.is_alive():
                os.kill(each.pid, signal.SIGHUP)


def worker() -> Application:
    """What every worker serves; called there. The first that has started speaks for all."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    settings = settings_of(None)
    configure(settings.log_level, settings.log_format, sys.stderr.buffer)

    def announce(ready: Ready) -> None:
        with contextlib.suppress(FileExistsError):
            Path(os.environ[SHARED_FOLDER], "announced").touch(exist_ok=False)
            click.echo(banner(ready))
        _settle_memory()
        # A terminal sends it to all of them, and the supervisor says what follows from that.
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
        app.stopping.follow([signal.SIGTERM], settings.streaming.grace)
        _reload_on_hangup(app)

    app = Application(settings, announce)
    return app


def _server_config(app: Application | str, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=settings.workers,
        http=GuardedProtocol,
        loop="app.api.accepting:Loop",
        ws="none",
        lifespan="on",
        proxy_headers=False,  # who asks is told by keys, never by what a header claims
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=FLUSH_SECONDS,
    )


def _reload_on_hangup(app: Application) -> None:
    # by the loop, because a bare handler may interrupt a log line that is being written
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, app.reload, "SIGHUP")


def _settle_memory() -> None:
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be looked at again
    gc.set_threshold(50_000, 20, 50)


def banner(ready: Ready) -> str:
    """What a person wants to know at start: where, what answers, what is missing, and a line to try."""
    settings = ready.settings
    url = local_url(settings.host, settings.port)
    lines = [f"Tierway {__version__} on {url}"]
    if settings.host in EVERYWHERE:
        lines[0] += f", listening on {settings.host} (every address of this machine)"
    if ready.simulated:
        lines += [
            "",
            "  !! NO REAL MODEL ANSWERS: every answer below comes from the built-in SIMULATOR. !!",
            "  Start Ollama, or set OLLAMA_BASE_URL, VLLM_BASE_URL, ANTHROPIC_API_KEY or",
            "  OPENAI_COMPATIBLE_BASE_URL, and start again.",
        ]
    lines += ["", "  upstreams"]
    for found in ready.found:
        state = state_of(found, settings.upstreams.get(found.upstream))
        lines.append(f"    {found.upstream:<12} {found.kind:<10} {'local' if found.local else 'paid':<6} {state}")
    names = ["auto", *(card.id for card in ready.registry.cards[:MODELS_SHOWN])]
    lines += ["", "  models       " + ", ".join(names)]
    if (more := len(ready.registry.cards) - MODELS_SHOWN) > 0:
        lines[-1] += f" and {more} more (GET {url}/v1/models)"
    if settings.workers > 1:
        lines.append(f"  workers      {settings.workers}")
    lines += [f"  keys         {_keys_wanted(ready)}", f"  docs         {url}/docs", "", "  Try it:", ""]
    key = " -H 'authorization: Bearer YOUR_KEY'" if ready.keys_needed else ""
    body = '{"model": "auto", "messages": [{"role": "user", "content": "Hello!"}]}'
    lines += [f"curl {url}/v1/chat/completions{key} -H 'content-type: application/json' -d '{body}'", ""]
    return "\n".join(lines)


def _keys_wanted(ready: Ready) -> str:
    if ready.keys_needed:
        return "every request needs a key"
    if is_loopback(ready.settings.host):
        return f"none needed on this machine until you make one: {MAKE_KEY}"
    return f"none needed by ANYBODY who reaches this address, until you make one: {MAKE_KEY}"
