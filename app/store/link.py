"""One connection that speaks the Redis protocol: bytes out, replies in their order. No queue, no retry, no timeouts but
that of opening; what a reply means and what a loss means is the affair of whoever holds the link.

The client library's own connection is not used: it costs a coroutine and two stream wrappers per reply, and it notices
that a server went away only when something is sent to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from app.core.errors import InvalidValue
from app.store.address import Address

CONNECT_SECONDS: Final = 0.25

Value = str | bytes | int
Command = tuple[Value, ...]


def pack(command: Command) -> bytes:
    """The command as it goes over the wire. Text may come from outside, and not all of that can be written."""
    try:
        packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub allows one item only
    except UnicodeEncodeError:
        raise InvalidValue("The text holds characters that are no valid Unicode.") from None
    return packed


class Unreachable(Exception):
    """No connection now; `refused` tells that the server answered and does not want us, which waiting will not cure."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class Link(asyncio.Protocol):
    """`on_reply` gets each reply (errors as `hiredis.ReplyError`), `on_lost` is called once, at the end."""

    def __init__(self, on_reply: Callable[[Any], None], on_lost: Callable[[], None]) -> None:
        self.on_reply = on_reply
        self.on_lost = on_lost
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._ended = asyncio.Event()

    @property
    def lost(self) -> bool:
        return self._transport is None

    @property
    def closing(self) -> bool:
        """Lost, or about to be: what is written now goes nowhere."""
        return self._transport is None or self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self.on_reply(reply)
        except hiredis.ProtocolError:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ended.set()
        self.on_lost()

    def write(self, data: bytes) -> None:
        """Does nothing once the connection is gone: `on_lost` has told, or is about to."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def forget(self) -> None:
        """The connection is gone, whether the event loop has said so or not."""
        self._transport = None

    async def aclose(self) -> None:
        """Returns when nothing of the connection is left."""
        if self._transport is not None:
            self._transport.abort()
            await self._ended.wait()


async def open_link(
    address: Address,
    on_reply: Callable[[Any], None],
    on_lost: Callable[[], None],
    timeout: float = CONNECT_SECONDS,
) -> Link:
    """A connection that has been let in and whose server is ready. Raises `Unreachable`."""
    loop = asyncio.get_running_loop()
    greeting = address.greeting()
    greeted: asyncio.Future[None] = loop.create_future()
    waiting = len(greeting)

    def on_greeting(reply: Any) -> None:
        nonlocal waiting
        waiting -= 1
        if greeted.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            kind = str(reply).partition(" ")[0]
            greeted.set_exception(Unreachable(f"the server answers {kind}", refused=kind not in ("LOADING", "BUSY")))
        elif not waiting:
            link.on_reply, link.on_lost = on_reply, on_lost
            greeted.set_result(None)

    def on_end() -> None:
        if not greeted.done():
            greeted.set_exception(Unreachable("the connection was closed at once, or is not the Redis protocol"))

    link = Link(on_greeting, on_end)
    try:
        async with asyncio.timeout(timeout):
            await _connect(loop, address, link)
            link.write(b"".join(pack(command) for command in greeting))
            await greeted
    except BaseException as error:  # also when cancelled: nothing may stay open
        await link.aclose()
        with contextlib.suppress(asyncio.CancelledError, Unreachable):
            greeted.cancel() or greeted.exception()
        if isinstance(error, TimeoutError):
            raise Unreachable("no answer in time") from None
        if isinstance(error, OSError | UnicodeError):
            raise Unreachable(getattr(error, "strerror", None) or "no connection") from None
        raise
    return link


async def _connect(loop: asyncio.AbstractEventLoop, address: Address, link: Link) -> None:
    try:
        if address.path is not None:
            await loop.create_unix_connection(lambda: link, address.path)
        else:
            await loop.create_connection(lambda: link, address.host, address.port, ssl=address.tls)
    except BaseException:  # also when cancelled: the loop closes what it opened, but uvloop tells nobody of its end
        link.forget()
        raise
