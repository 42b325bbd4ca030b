"""Lets clients in: all that wait, each time the event loop looks.

uvloop by itself lets in one at each turn. A busy gateway's turns are long, so that new clients would wait in the
kernel, seen by nobody, and neither be served nor refused.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

import uvloop

from app.core.tasks import TaskOwner

AT_ONCE: Final = 512
"""The most at one turn: others want to get on as well."""
PAUSE_SECONDS: Final = 0.1
"""Until it tries again where there is nothing left to make a connection of: files, memory."""


class Entry:
    """A listening socket, with what a server needs of one. Errors of single connections are their own affair."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.BaseProtocol], listener: socket.socket
    ) -> None:
        self.sockets = (listener,)
        self._loop = loop
        self._factory = factory
        self._listener = listener
        self._tasks = TaskOwner(lambda where, error: None)
        self._timer: asyncio.TimerHandle | None = None
        self._open()

    def _open(self) -> None:
        self._loop.add_reader(self._listener, self._let_in)

    def _let_in(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:  # it has left already
                continue
            except OSError:
                self._loop.remove_reader(self._listener)
                self._timer = self._loop.call_later(PAUSE_SECONDS, self._open)
                return
            connection.setblocking(False)
            self._tasks.spawn(self._loop.connect_accepted_socket(self._factory, connection), "a client comes in")

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._listener.fileno() != -1:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    async def wait_closed(self) -> None:
        await self._tasks.drain(PAUSE_SECONDS)


class Loop(uvloop.Loop):
    """uvloop, which lets in all that wait."""

    async def create_server(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        listener = options.get("sock")
        if listener is None or options.get("ssl") is not None:
            return await super().create_server(protocol_factory, *args, **options)
        listener.setblocking(False)
        listener.listen(options.get("backlog", 100))
        return Entry(self, protocol_factory, listener)
