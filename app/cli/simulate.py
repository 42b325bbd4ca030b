"""`tierway simulate`: fake upstreams on the ports of the real ones."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import click

from app.cli.options import fail, run
from app.simulator.server import PORTS, VARIABLES
from app.simulator.server import simulate as simulated_server


@click.command()
@click.option("--kind", "kinds", multiple=True, type=click.Choice(sorted(PORTS)), help="Only these; may be repeated.")
@click.option("--host", default="127.0.0.1", show_default=True)
def simulate(kinds: tuple[str, ...], host: str) -> None:
    """Run fake upstreams that speak the real wires, with faults on demand.

    \b
    Example:
      tierway simulate --kind ollama --kind anthropic
      curl http://127.0.0.1:11434/_sim/faults
    """
    with contextlib.suppress(KeyboardInterrupt):
        run(_simulate(kinds or tuple(PORTS), host))


async def _simulate(kinds: tuple[str, ...], host: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for kind in kinds:
            try:
                server = await stack.enter_async_context(simulated_server(kind, host=host, port=PORTS[kind]))
            except OSError as error:
                fail(f"Port {PORTS[kind]} for {kind} cannot be had: {error.strerror}.")
            click.echo(f"{kind:<10} {server.base_url}   ({VARIABLES[kind]}={server.base_url})")
        if "anthropic" in kinds:
            click.echo("The fake Claude wants a key: set ANTHROPIC_API_KEY to anything.")
        click.echo("Faults: GET /_sim/faults lists them, POST /_sim/faults sets them. Stop with Ctrl-C.")
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        await stop.wait()
