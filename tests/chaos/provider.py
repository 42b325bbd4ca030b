"""A model provider that sells by the token, misbehaves by a seed, and remembers what it may bill for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import orjson

PROMPT_TOKENS: Final = 10
INPUT_NANO: Final = 1_000
OUTPUT_NANO: Final[Mapping[str, int]] = {"dear": 100_000, "cheap": 50_000}
"""Nano-dollars of a token by each of its two models."""
CLOSED: Final = (ConnectionError, asyncio.IncompleteReadError)


def prices() -> dict[str, dict[str, float]]:
    """In USD per million, as the file wants them."""
    return {name: {"input": INPUT_NANO / 1e3, "output": nano / 1e3} for name, nano in OUTPUT_NANO.items()}


@dataclass(slots=True)
class Served:
    """One call. `whole`: its answer was sent to the end."""

    request_id: str
    model: str
    tokens: int = 0
    billed: bool = True
    whole: bool = False

    @property
    def nano(self) -> int:
        return (PROMPT_TOKENS * INPUT_NANO + self.tokens * OUTPUT_NANO[self.model]) * self.billed


class Provider:
    """Of its calls, `wrong` is the share that goes wrong: refused, broken off before or within the answer. `closed`
    counts the connections it broke off, on which another call may have been on its way."""

    def __init__(self, seed: int, wrong: float = 0.2) -> None:
        self.served: list[Served] = []
        self.closed = 0
        self._dice = Random(seed)
        self._wrong = wrong

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=512)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._call(reader, writer):
                await writer.drain()
        except CLOSED:
            pass
        finally:
            self.closed += 1
            writer.transport.abort()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        line, *rows = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        path = line.split()[1]
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        model = path.split("/")[1]
        if path.endswith("/models"):
            _whole(writer, {"object": "list", "data": [{"id": model, "object": "model"}]})
            return True
        if not path.endswith("/chat/completions"):
            _whole(writer, {"error": {"message": "there is nothing"}}, "404 Not Found")
            return True
        return await self._sell(Served(headers["x-request-id"], model), orjson.loads(body), writer)

    async def _sell(self, served: Served, asked: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        self.served.append(served)
        fate = self._dice.choice(("refuse", "reset", "cut", "cut")) if self._dice.random() < self._wrong else "well"
        pause = self._dice.choice((0.0, 0.0, 0.0, 0.02, 0.1, 0.4))
        if fate == "refuse":
            served.billed = False
            _whole(writer, {"error": {"message": "busy"}}, "503 Service Unavailable")
            return True
        wanted = int(asked["messages"][-1]["content"].rpartition("tokens=")[2])
        tokens = min(wanted, asked["max_tokens"])
        if fate == "cut":
            tokens = self._dice.randrange(tokens)
        if not asked.get("stream"):
            served.tokens = tokens  # made, whoever still listens
            await asyncio.sleep(pause)
        if fate == "reset":
            return False
        if asked.get("stream"):
            return await self._stream(served, tokens, fate, pause, writer)
        reply = _whole_reply(served, tokens)
        if fate == "cut":
            writer.write(reply[:-20])
            return False
        served.whole = True
        writer.write(reply)
        return True

    async def _stream(self, served: Served, tokens: int, fate: str, pause: float, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while served.tokens < tokens:
            some = min(25, tokens - served.tokens)
            served.tokens += some
            _chunk(writer, *({"index": 0, "delta": {"content": " word"}, "finish_reason": None} for _ in range(some)))
            await writer.drain()
            await asyncio.sleep(pause / 4)
        if fate == "cut":
            return False
        _chunk(writer, {"index": 0, "delta": {}, "finish_reason": "stop"})
        last = {**_object(served), "choices": [], "usage": _usage(tokens)}
        _piece(writer, b"data: " + orjson.dumps(last) + b"\n\ndata: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        served.whole = True
        return True


def _object(served: Served) -> dict[str, Any]:
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": served.model}


def _usage(tokens: int) -> dict[str, int]:
    total = PROMPT_TOKENS + tokens
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": total}


def _chunk(writer: asyncio.StreamWriter, *choices: dict[str, Any]) -> None:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    _piece(writer, b"".join(b"data: " + orjson.dumps({**head, "choices": [one]}) + b"\n\n" for one in choices))


def _piece(writer: asyncio.StreamWriter, data: bytes) -> None:
    if writer.transport.is_closing():
        raise ConnectionResetError
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def _whole_reply(served: Served, tokens: int) -> bytes:
    message = {"role": "assistant", "content": " word" * tokens or "none"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return _bytes({**_object(served), "object": "chat.completion", "choices": choices, "usage": _usage(tokens)})


def _whole(writer: asyncio.StreamWriter, value: Any, status: str = "200 OK") -> None:
    writer.write(_bytes(value, status))


def _bytes(value: Any, status: str = "200 OK") -> bytes:
    body = orjson.dumps(value)
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
