"""`tierway simulate`: fake upstreams on the ports of the real ones."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import click

from app.cli.options import fail, run
from app.simulator.server import PORTS, VARIABLES
from app.simulator.server import simulate as simulated_server


def _ports(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """`KIND` or `KIND=PORT`; none at all means every kind."""
    ports = {}
    for value in values or tuple(PORTS):
        kind, equals, port = value.partition("=")
        if kind not in PORTS or (equals and not (port.isascii() and port.isdigit() and int(port) <= 65_535)):
            raise click.BadParameter(f"{value!r} is neither KIND nor KIND=PORT; the kinds are {', '.join(PORTS)}.")
        ports[kind] = int(port) if equals else PORTS[kind]
    return ports


@click.command(short_help="Run fake upstreams, with faults on demand.")
@click.option(
    "--kind",
    "ports",
    multiple=True,
    callback=_ports,
    metavar="KIND[=PORT]",
    help=f"Only these ({', '.join(PORTS)}); may be repeated. PORT 0 takes a free one.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
def simulate(ports: dict[str, int], host: str) -> None:
    """Run fake upstreams that speak the real wires, with faults on demand.

    \b
    Example:
      tierway simulate --kind ollama --kind anthropic=9001
      curl http://127.0.0.1:11434/_sim/faults
    """
    run(_simulate(ports, host))


async def _simulate(ports: dict[str, int], host: str) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        for kind, port in ports.items():
            try:
                server = await stack.enter_async_context(simulated_server(kind, host=host, port=port))
            except OSError as error:
                why = (error.strerror or str(error)).rpartition(": ")[2]  # asyncio says the address once more
                fail(f"Port {port} for {kind} cannot be had: {why}. Name another: --kind {kind}=PORT")
            click.echo(f"{kind:<10} {server.base_url}   ({VARIABLES[kind]}={server.base_url})")
        if "anthropic" in ports:
            click.echo("The fake Claude wants a key: set ANTHROPIC_API_KEY to anything.")
        click.echo("Faults: GET /_sim/faults lists them, POST /_sim/faults sets them. Stop with Ctrl-C.")
        await stop.wait()
