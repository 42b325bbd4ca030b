"""From a URL to an open connection: names resolved, both families tried, TLS where the scheme says so.

The kernel is given a bound on what it takes for us: left to itself it would take megabytes of an answer that its client
does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from app.core.errors import Refused
from app.core.tasks import TaskOwner
from app.upstreams.connection import Connection

HEAD_START_SECONDS: Final = 0.25  # that one address gets before the next is tried beside it
PORTS: Final = {"http": 80, "https": 443}


class Target(NamedTuple):
    """Where a URL leads: whom to connect to, and what to ask there."""

    secure: bool
    host: str
    port: int
    authority: str
    path: str

    @property
    def origin(self) -> tuple[bool, str, int]:
        return self.secure, self.host, self.port


@functools.lru_cache(maxsize=1_024)
def target_of(url: str) -> Target:
    """Raises `Refused` for what is no URL we can use."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        raise Refused("The upstream's address is not a URL we can use.") from error
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme not in PORTS or not host or not f"{host}{path}".isascii() or not f"{host}{path}".isprintable():
        raise Refused("The upstream's address is not a URL we can use.")
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port in (None, PORTS[parts.scheme]) else f"{shown}:{port}"
    return Target(parts.scheme == "https", host, port or PORTS[parts.scheme], authority, path.replace(" ", "%20"))


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def connect(target: Target, receive_bytes: int, make: Callable[[], Connection] = Connection) -> Connection:
    """An open connection. The kernel is asked to receive that many bytes ahead. Raises `Refused`; how long it may take
    is the caller's affair."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        made = await _first_to_accept(_interleaved(found), receive_bytes)
    except (OSError, UnicodeError) as error:
        raise Refused("The upstream accepts no connection.") from error
    try:
        _, connection = await loop.create_connection(
            make,
            sock=made,
            ssl=_tls() if target.secure else None,
            server_hostname=target.host if target.secure else None,
        )
    except (OSError, ssl.SSLError) as error:
        made.close()
        raise Refused("The upstream accepts no connection.") from error
    except BaseException:  # cancelled: the socket is nobody's yet
        made.close()
        raise
    return connection


Address = tuple[Any, ...]


def _interleaved(found: Sequence[Address]) -> list[Address]:
    """The addresses in turns of their families, so that a family without a way out costs one wait and not all."""
    families: dict[Any, list[Address]] = {}
    for address in found:
        families.setdefault(address[0], []).append(address)
    queues = list(families.values())
    return [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]


async def _first_to_accept(addresses: Sequence[Address], receive_bytes: int) -> socket.socket:
    """A socket connected to one of them; no other stays open."""
    accepted: list[socket.socket] = []
    try:
        await _race(addresses, receive_bytes, accepted)
        return accepted.pop(0)
    finally:
        for late in accepted:
            late.close()


async def _race(addresses: Sequence[Address], receive_bytes: int, accepted: list[socket.socket]) -> None:
    """Tries one address after the other side by side, until one is among the `accepted`: the next is tried once those
    before it had their head start, or at once when one of them failed. Raises the last failure when all did."""
    errors: list[BaseException] = [OSError("the name has no address")]
    attempts = TaskOwner(lambda _, error: errors.append(error))

    async def attempt(address: Address) -> None:
        accepted.append(await _connected(address, receive_bytes))

    left, trying = deque(addresses), set[asyncio.Task[None]]()
    try:
        while (left or trying) and not accepted:
            if left:
                trying.add(attempts.spawn(attempt(left.popleft()), "connect"))
            head_start = HEAD_START_SECONDS if left else None
            _, trying = await asyncio.wait(trying, timeout=head_start, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await attempts.cancel()
    if not accepted:
        raise errors[-1]


async def _connected(address: Address, receive_bytes: int) -> socket.socket:
    family, kind, protocol, _, where = address
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        with contextlib.suppress(OSError):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(made, where)
    except BaseException:  # refused or cancelled: either way the socket is ours to close
        made.close()
        raise
    return made
