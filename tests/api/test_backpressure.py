"""A client that does not read must be felt at once, and one that reads a little must not be taken for one that does
not: over real sockets, because it is the kernel that tells."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import cast

from app.api.backpressure import Backpressure, Clients
from app.core.buffers import Buffers
from tests.api.wire import soon


class Server(asyncio.Protocol):
    """One connection of a client, and what was told of it."""

    def __init__(self) -> None:
        self.told: list[tuple[int, float | None]] = []
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = made = cast(asyncio.Transport, transport)
        clients = Clients(
            Buffers.of(65_536),
            blocked=lambda size: self.told.append((size, None)),
            flows=lambda size, seconds: self.told.append((size, seconds)),
        )
        self.backpressure = Backpressure(made, clients)

    def pause_writing(self) -> None:
        self.backpressure.begins()

    def resume_writing(self) -> None:
        self.backpressure.ends()

    def connection_lost(self, exc: Exception | None) -> None:
        self.backpressure.ends()


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Server, socket.socket]]:
    server, client = Server(), socket.socket()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: server, "127.0.0.1", 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.setblocking(False)
    await loop.sock_connect(client, listening.sockets[0].getsockname())
    await soon(lambda: server.transport is not None)
    try:
        yield server, client
    finally:
        client.close()
        listening.close()
        if server.transport is not None:
            server.transport.abort()
        await soon(lambda: server.transport is None or server.transport.is_closing())


async def test_what_a_client_does_not_take_is_told_and_for_how_long() -> None:
    async with connected() as (server, client):
        assert server.transport is not None
        while not server.told:
            server.transport.write(b"x" * 1_000)
            await asyncio.sleep(0)
        assert server.told[0][0] > Buffers.of(65_536).write and server.told[0][1] is None
        before = server.backpressure.waiting()
        assert before > server.transport.get_write_buffer_size(), "what the kernel holds counts too"
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.02)
        while len(server.told) == 1:
            await loop.sock_recv(client, 1_000)
        size, seconds = server.told[1]
        assert size == server.told[0][0] and seconds is not None and seconds > 0
        assert server.backpressure.waiting() < before


async def test_a_client_that_leaves_no_longer_counts() -> None:
    async with connected() as (server, client):
        assert server.transport is not None
        while not server.told:
            server.transport.write(b"x" * 1_000)
            await asyncio.sleep(0)
        client.close()
        server.transport.abort()
        await soon(lambda: len(server.told) == 2)
        assert server.told[1][0] == server.told[0][0]
        assert server.backpressure.waiting() >= 0, "a closed socket has nothing to tell"
