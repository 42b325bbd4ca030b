"""Stores of others: over TLS with a password, and a cluster of real servers whose named node holds none of our keys.
Operators name them by REDIS_URL alone, and keys and money must be as exact there."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from app.simulator.server import simulate
from app.store import layout
from app.store.address import parse
from app.store.client import Store
from app.store.errors import StoreUnusable
from app.store.folder import find_server
from tests.flows.asking import ADMIN, ANY, Asking, Reply, within
from tests.flows.service import MODELS, gateway, upstream

pytestmark = [pytest.mark.asyncio(loop_scope="function"), pytest.mark.timeout(120)]

MODEL: Final = MODELS["openai"]
PASSWORD: Final = "a-password-of-this-test"
SLOTS: Final = 16_384


async def piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.asynccontextmanager
async def server(folder: Path, *options: str) -> AsyncIterator[None]:
    """A real server, kept from writing anything."""
    folder.mkdir()
    command = [find_server(), *options, "--save", "", "--dir", str(folder), "--logfile", str(folder / "log")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def certified(folder: Path) -> ssl.SSLContext:
    """A certificate for this machine, which `ca.pem` alone vouches for."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl here to make a certificate with")
    line = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    line += ["-days", "2", "-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1"]
    line += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")]
    subprocess.run(line, check=True, capture_output=True, timeout=60)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


@contextlib.asynccontextmanager
async def encrypted(folder: Path) -> AsyncIterator[str]:
    """The address of a real server with a password behind TLS, without what says whom to trust."""
    context, path = certified(folder), folder / "s"

    async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back = await asyncio.open_unix_connection(str(path))
        await asyncio.gather(piped(reader, back[1]), piped(back[0], writer))

    options = ("--port", "0", "--unixsocket", str(path), "--requirepass", PASSWORD)
    async with server(folder / "data", *options), await asyncio.start_server(front, "127.0.0.1", 0, ssl=context) as tls:
        await within(20, lambda: asyncio.sleep(0, path.exists()), "the server is there")
        yield f"rediss://:{PASSWORD}@127.0.0.1:{tls.sockets[0].getsockname()[1]}/0"


async def told(port: int, *command: str | int) -> bytes:
    """What one server says to one command."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write((" ".join(map(str, command)) + "\r\n").encode())
    said = await reader.read(1 << 16)
    writer.close()
    return said


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[int, int]]:
    """Two real nodes: the second has the slot of our keys, the first all others."""
    ports = [(free_port(), free_port()) for _ in range(2)]
    async with contextlib.AsyncExitStack() as stack:
        for number, (port, bus) in enumerate(ports):
            options = ("--port", port, "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--cluster-port", bus)
            await stack.enter_async_context(server(folder / f"node-{number}", *map(str, options)))
        (one, _), (two, bus) = ports
        for port in (one, two):
            await within(20, until_ok(partial(told, port, "PING"), b"PONG"), "the node is there")
        ours = int((await told(one, "CLUSTER", "KEYSLOT", layout.TAG)).strip(b":\r\n"))
        assert await told(two, "CLUSTER", "ADDSLOTS", ours) == b"+OK\r\n"
        ranges = [(0, ours - 1), (ours + 1, SLOTS - 1)]
        assert await told(one, "CLUSTER", "ADDSLOTSRANGE", *(end for each in ranges for end in each)) == b"+OK\r\n"
        assert await told(one, "CLUSTER", "MEET", "127.0.0.1", two, bus) == b"+OK\r\n"
        for port in (one, two):
            state = until_ok(partial(told, port, "CLUSTER", "INFO"), b"cluster_state:ok")
            await within(60, state, "the nodes know each other")
        yield one, two


def until_ok(ask: Callable[[], Awaitable[bytes]], wanted: bytes) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        try:
            return wanted in await ask()
        except OSError:
            return False

    return is_so


async def serves(folder: Path, url: str) -> None:
    """Two gateways on it: a key that one made is known to the other, and every cent is counted once for both."""
    models = {MODEL: {**ANY, "price": {"input": 10.0, "output": 100.0}}}
    budgets = [{"scope": "global", "period": "total", "limit": 50.0}]
    environ = {**ADMIN, "REDIS_URL": url}
    async with contextlib.AsyncExitStack() as stack:
        sim = await stack.enter_async_context(simulate("openai"))
        found = []
        for _ in range(2):
            made = gateway(folder, {"openai": upstream(sim)}, models=models, budgets=budgets, environ=environ)
            found.append(await stack.enter_async_context(Asking(await stack.enter_async_context(made))))
        one, two = found
        key = (await one.admin("POST", "keys", {"name": "me"}, status=201))["key"]

        replies: list[Reply] = []

        async def is_known() -> bool:
            reply = await two.chat(model=MODEL, key=key, session="talk")
            replies.extend([reply] if reply.status == 200 else [])
            return bool(replies)

        await within(20, is_known, "the other gateway knows the key")
        replies += [await asking.chat(model=MODEL, key=key, session="talk") for asking in (one, two, one)]
        assert [reply.status for reply in replies] == [200] * 4
        cost = sum(Decimal(reply.headers["x-tierway-cost-usd"]) for reply in replies)

        async def is_counted() -> bool:
            states = {each["id"]: each for each in (await two.admin("GET", "budgets"))["data"]}
            used, held = (Decimal(str(states["global:*:total"][what])) for what in ("used", "held"))
            return used == cost > 0 and not held

        await within(20, is_counted, "what was spent is counted, and nothing twice")
        assert not (folder / "data" / "store").exists(), "no server of our own was started"


async def test_over_tls_with_a_password(tmp_path: Path) -> None:
    async with encrypted(tmp_path) as url:
        await serves(tmp_path, f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}")


async def test_a_server_that_nobody_vouches_for_is_not_told_the_password(tmp_path: Path) -> None:
    """Whoever sits between would have it."""
    async with encrypted(tmp_path) as url:
        with pytest.raises(StoreUnusable) as refused:
            await Store(parse(url)).open(1)
        assert PASSWORD not in str(refused.value)


async def test_on_a_cluster(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (one, two):
        await serves(tmp_path, f"redis://127.0.0.1:{one}")
        assert await told(one, "DBSIZE") == b":0\r\n" and await told(two, "DBSIZE") != b":0\r\n"
