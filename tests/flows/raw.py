"""A client without manners: a raw socket that sends what it likes, reads when it likes, and vanishes."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Self

import orjson

NO_LINGER = struct.pack("ii", 1, 0)


class RawClient:
    """One connection. Everything that came is in `received`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.received = b""

    @classmethod
    async def connect(cls, port: int, receive_buffer: int | None = None) -> Self:
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        return cls(connection)

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._connection, data)

    async def more(self, timeout: float = 10) -> bytes:
        """What comes next; empty when the gateway has closed."""
        async with asyncio.timeout(timeout):
            try:
                data = await self._loop.sock_recv(self._connection, 65_536)
            except ConnectionResetError:
                data = b""
        self.received += data
        return data

    async def until(self, mark: bytes, timeout: float = 10) -> bytes:
        """Reads until `mark` has come; all that came."""
        while mark not in self.received:
            assert await self.more(timeout), f"closed before {mark!r} came: {self.received[-500:]!r}"
        return self.received

    async def rest(self, timeout: float = 10) -> bytes:
        """All until the gateway closes."""
        while await self.more(timeout):
            pass
        return self.received

    async def reply(self) -> tuple[int, bytes]:
        """Status and body of the next whole reply; what follows it stays."""
        await self.until(b"\r\n\r\n")
        head, _, body = self.received.partition(b"\r\n\r\n")
        status = int(head[9:12])
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            await self.until(b"0\r\n\r\n")
            body, _, self.received = self.received.partition(b"\r\n\r\n")[2].partition(b"0\r\n\r\n")
            return status, body
        length = int(lowered.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(self.received) < len(head) + 4 + length:
            assert await self.more(), "closed in the middle of a body"
        body, self.received = self.received[len(head) + 4 :][:length], self.received[len(head) + 4 + length :]
        return status, body

    def vanish(self, *, reset: bool = False) -> None:
        """Closes, in good order or with a reset."""
        if reset:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._connection.close()


def post(body: dict[str, Any] | bytes, path: str = "/v1/chat/completions", **headers: str) -> bytes:
    """A whole request."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    fields = {"host": "gateway", "content-type": "application/json", "content-length": str(len(data))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data


def get(path: str, **headers: str) -> bytes:
    fields = {"host": "gateway"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return (f"GET {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n").encode()


def chat(model: str, text: str, **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}
