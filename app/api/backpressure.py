"""A client's connection as far as it holds back what is sent: how much may wait there, that it waits, and for how long.

The server's protocol tells when its write buffer is full and when there is room again; nothing here happens per event.
What a client has not taken yet is asked only of one that seems to take nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from app.config.schema import Streaming
from app.core.buffers import Buffers
from app.telemetry.stream_metrics import StreamMetrics

CLIENTS: Final = "tierway.clients"
"""The name in the server's state under which the application says how its clients' connections are to be."""
DEAD_PEER_SECONDS: Final = 30.0


def _unobserved(*_: float) -> None:
    """Nobody counts."""


@dataclass(frozen=True, slots=True)
class Clients:
    """`blocked` is told of the bytes that wait once a client does not keep up, `flows` of the same bytes and of the
    seconds once it takes them again. `patience`: so many seconds a client may take nothing."""

    buffers: Buffers = field(default_factory=Buffers)
    patience: float = DEAD_PEER_SECONDS
    blocked: Callable[[int], None] = _unobserved
    flows: Callable[[int, float], None] = _unobserved


USUAL: Final = Clients()


def clients_of(streaming: Streaming, metrics: StreamMetrics) -> Clients:
    """As the operator wants them."""
    buffers = Buffers.of(streaming.buffer_bytes)
    return Clients(buffers, streaming.send_timeout, metrics.blocked, metrics.flows)


class Backpressure:
    """That of one connection."""

    def __init__(self, transport: asyncio.Transport, clients: Clients) -> None:
        self._transport = transport
        self._clients = clients
        self._bytes = 0
        self._since = 0.0
        transport.set_write_buffer_limits(clients.buffers.write)
        self._socket = transport.get_extra_info("socket")
        if self._socket is not None:
            bound(self._socket, clients)

    def begins(self) -> None:
        self._bytes = self._transport.get_write_buffer_size()
        self._since = asyncio.get_running_loop().time()
        self._clients.blocked(self._bytes)

    def ends(self) -> None:
        """Also at the end of the connection, whether it was blocked or not."""
        if self._bytes:
            self._clients.flows(self._bytes, asyncio.get_running_loop().time() - self._since)
            self._bytes = 0

    def waiting(self) -> int:
        """Bytes that the client has not taken yet, as far as this machine knows."""
        size = self._transport.get_write_buffer_size()
        if self._socket is not None:
            with contextlib.suppress(OSError, ValueError):  # it is closed, or cannot tell
                told = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
                size += int.from_bytes(told, sys.byteorder)
        return size


def bound(connection: socket.socket, clients: Clients) -> None:
    """Lets the kernel take little ahead, send at once, and give a client up that takes nothing."""
    patience = round(1_000 * max(clients.patience, DEAD_PEER_SECONDS))
    with contextlib.suppress(OSError, AttributeError):  # a Unix socket, or another system than Linux
        # Else the second write of a reply waits 40 ms for the client to acknowledge the first.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, clients.buffers.send_socket)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
