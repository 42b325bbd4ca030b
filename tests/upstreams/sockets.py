"""Raw servers on ephemeral ports, so that bytes no HTTP library would write can be sent to the transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextlib.asynccontextmanager
async def server(handler: Handler, *, read_head: bool = True) -> AsyncIterator[str]:
    """Runs `handler` for each connection, after the head of the request was read."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if read_head:
                await reader.readuntil(b"\r\n\r\n")
            await handler(reader, writer)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for writer in writers:
            writer.transport.abort()
        for writer in writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def says(*pieces: bytes, then: str = "close") -> Handler:
    """Sends the pieces, then closes, resets or hangs."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if then == "hang":
            await reader.read()
        elif then == "reset":
            await asyncio.sleep(0.02)
            writer.transport.abort()
        else:
            writer.close()

    return handle


def hangs_after(head: bytes, closed: asyncio.Event, asked: asyncio.Event | None = None) -> Handler:
    """Says `asked` when it was asked, and `closed` once the client has closed the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        if asked is not None:
            asked.set()
        with contextlib.suppress(OSError):
            await reader.read()
        closed.set()

    return handle
