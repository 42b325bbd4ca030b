"""A gateway that is busy and lets in one client at a time leaves the others in a queue that nobody sees."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from app.api import accepting
from app.api.accepting import Entry, Loop


class Greets(asyncio.Protocol):
    """Says one word to whoever comes in."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert transport.get_extra_info("peername")
        cast(asyncio.Transport, transport).write(b"hello")
        transport.close()


def run(what: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(what)


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def clients(door: socket.socket, count: int) -> list[socket.socket]:
    """They are in the kernel's queue, as nobody has let them in yet."""
    return [socket.create_connection(door.getsockname()) for _ in range(count)]


async def greeted(waiting: list[socket.socket]) -> list[bytes]:
    loop = asyncio.get_running_loop()
    words = []
    for each in waiting:
        each.setblocking(False)
        words.append(await asyncio.wait_for(loop.sock_recv(each, 100), 10))
        each.close()
    return words


def test_all_that_wait_are_let_in_at_one_turn() -> None:
    """Each turn of this loop is long."""

    async def busy() -> None:
        door = listener()
        server = await asyncio.get_running_loop().create_server(Greets, sock=door, backlog=128)
        waiting = clients(door, 50)
        for _ in range(5):
            time.sleep(0.005)
            await asyncio.sleep(0)
        assert await greeted(waiting) == [b"hello"] * 50
        server.close()
        await server.wait_closed()

    turns = accepting.AT_ONCE
    assert turns >= 50
    run(busy())


def test_more_than_that_are_let_in_at_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "AT_ONCE", 3)

    async def few() -> None:
        door = listener()
        server = await asyncio.get_running_loop().create_server(Greets, sock=door)
        assert await greeted(clients(door, 10)) == [b"hello"] * 10
        server.close()

    run(few())


def test_a_closed_entry_lets_nobody_in() -> None:
    async def closing() -> None:
        door = listener()
        where = door.getsockname()
        server = await asyncio.get_running_loop().create_server(Greets, sock=door)
        server.close()
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where)

    run(closing())


class Failing(socket.socket):
    """Has no file for a connection at first, and one that left at once."""

    errors: list[OSError]

    def accept(self) -> tuple[socket.socket, Any]:
        if self.errors:
            raise self.errors.pop(0)
        return super().accept()


def test_without_files_it_tries_again_soon() -> None:
    """Else one moment without files is the end of a gateway that goes on running."""

    async def poor() -> None:
        door = Failing()
        door.errors = [
            ConnectionAbortedError(),
            OSError(errno.EMFILE, "too many open files"),
            OSError(errno.ENOMEM, ""),
        ]
        door.bind(("127.0.0.1", 0))
        server = await asyncio.get_running_loop().create_server(Greets, sock=door)
        assert await greeted(clients(door, 2)) == [b"hello"] * 2
        server.close()

    run(poor())


def test_while_it_pauses_it_can_be_closed() -> None:
    async def closing() -> None:
        door = Failing()
        door.errors = [OSError(errno.EMFILE, "too many open files")]
        door.bind(("127.0.0.1", 0))
        server = await asyncio.get_running_loop().create_server(Greets, sock=door)
        waiting = clients(door, 1)
        while door.errors:
            await asyncio.sleep(0.001)
        server.close()
        await asyncio.sleep(accepting.PAUSE_SECONDS * 1.5)
        for each in waiting:
            each.close()

    run(closing())


def test_what_it_does_not_know_it_leaves_to_uvloop() -> None:
    async def plain() -> None:
        server = await asyncio.get_running_loop().create_server(Greets, "127.0.0.1", 0)
        assert not isinstance(server, Entry)
        server.close()

    run(plain())
