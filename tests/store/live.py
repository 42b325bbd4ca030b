"""Servers to test against: a real one for the whole run, and one that says what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import hiredis
import pytest

from app.store.address import Address
from app.store.client import Store
from app.store.folder import find_server

Answer = Callable[[list[bytes]], bytes | None]


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits, with a deadline, for something that another process does."""
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.005)


async def eventually(true: Callable[[], bool | Awaitable[bool]], seconds: float = 10.0) -> None:
    """The same, letting the event loop run."""
    async with asyncio.timeout(seconds):
        while True:
            result = true()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.005)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a real server without persistence."""
    folder = tmp_path_factory.mktemp("valkey")
    socket = folder / "s"
    command = [find_server(), "--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", ""]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        until(socket.exists)
        yield socket
        process.kill()


@pytest.fixture
async def store(valkey: Path) -> AsyncIterator[Store]:
    """An open store on an empty server."""
    store = Store(Address(path=str(valkey)), timeout=10.0)
    await store.open()
    await store.call("FLUSHALL")
    await store._check_layout()
    try:
        yield store
    finally:
        await store.aclose()


class Puppet:
    """A server on a Unix socket that answers each command as told; None: not at all. It can hang up and come back."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.address = Address(path=str(path))
        self.answer = answer
        self.heard: list[list[bytes]] = []
        self.reads = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.address.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        parser = hiredis.Reader()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                self.reads += 1
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    self.heard.append(command)
                    reply = self.answer(command)
                    if reply == b"HANG UP":
                        writer.transport.abort()
                    elif reply is not None:
                        writer.write(reply)

    def say(self, data: bytes) -> None:
        for writer in self._writers:
            writer.write(data)

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.hang_up()
            self._server = None


def ok(command: list[bytes]) -> bytes | None:
    """What a willing server of the right layout says."""
    return {b"PING": b"+PONG\r\n", b"GET": b"$1\r\n1\r\n"}.get(command[0], b"+OK\r\n")


@contextlib.asynccontextmanager
async def puppet(folder: Path, answer: Answer = ok) -> AsyncIterator[Puppet]:
    server = Puppet(folder / "p", answer)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
