"""The upstream behind the gateways: a mock that is faster than any of them, or the product's own simulator.

`python -m bench.upstream` prints the addresses by kind as one JSON object, then serves until it is stopped. The mock
looks for two things in a request, the model and `sim:tokens=N`, and sends bytes that were made before. It is not meant
to be a right server, only a fast one; the simulator is right, and slower.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import orjson
import uvloop

from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.server import simulate
from bench import replies
from bench.workloads import DIRECTIVE, PAUSES

HOST: Final = "127.0.0.1"
KINDS: Final = ("openai", "ollama", "anthropic", "vllm")
BACKLOG: Final = 4096
HELD_BYTES: Final = 262_144
"""Unsent bytes of one connection beyond which the mock waits for its reader."""
DEFAULT_TOKENS: Final = 8
BYTES_PER_TOKEN: Final = 4
_TOKENS: Final = re.compile(DIRECTIVE.encode() + rb"(\d{1,5})")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)")

Whole = Callable[[str, int, int], bytes]
Streamed = Callable[[str, int, int, dict[str, Any]], replies.Stream]


def _chat_stream(model: str, prompt: int, tokens: int, asked: dict[str, Any]) -> replies.Stream:
    return replies.chat_stream(model, prompt, tokens, bool((asked.get("stream_options") or {}).get("include_usage")))


ANSWERS: Final[Mapping[bytes, tuple[Whole, Streamed, bool]]] = {
    b"/v1/chat/completions": (replies.chat, _chat_stream, False),
    b"/v1/messages": (replies.messages, lambda *said: replies.messages_stream(*said[:3]), False),
    b"/api/chat": (replies.ollama, lambda *said: replies.ollama_stream(*said[:3]), True),
}
"""How each path is answered, whole and streamed, and whether it streams unless told otherwise."""


class Mock(asyncio.Protocol):
    """One connection of the mock: requests in, answers out, one after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._held += data
        if not self._busy:
            self._next()

    def _next(self) -> None:
        head, found, rest = self._held.partition(b"\r\n\r\n")
        length = _LENGTH.search(head.lower()) if found else None
        size = int(length[1]) if length else 0
        if not found or len(rest) < size:
            return
        self._held, self._busy = rest[size:], True
        path = head.split(b" ", 2)[1].partition(b"?")[0]
        self._answer(path, rest[:size])

    def _answer(self, path: bytes, body: bytes) -> None:
        if path not in ANSWERS:
            self._reply(replies.ABOUT.get(path, replies.NOT_FOUND))
            return
        whole, streamed, by_default = ANSWERS[path]
        try:
            asked = orjson.loads(body)
            model = asked["model"]
        except (ValueError, KeyError, TypeError):
            self._reply(replies.BAD_BODY)
            return
        found = _TOKENS.search(body)
        prompt, tokens = len(body) // BYTES_PER_TOKEN, int(found[1]) if found else DEFAULT_TOKENS
        if asked.get("stream", by_default):
            stream = streamed(model, prompt, tokens, asked)
            self._write(stream.start)
            self._token(stream, tokens, PAUSES.get(model, 0.0), self._loop.time())
        else:
            self._reply(whole(model, prompt, tokens))

    def _token(self, stream: replies.Stream, left: int, pause: float, due: float) -> None:
        """Sends a token, and comes back for the next: each is a write of its own."""
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() > HELD_BYTES:
            self._loop.call_later(0.001, self._token, stream, left, pause, due)
        elif left == 0:
            self._reply(stream.end)
        else:
            self._transport.write(stream.token)
            if pause < 0.001:
                self._loop.call_soon(self._token, stream, left - 1, pause, due)
            else:
                self._loop.call_at(due + pause, self._token, stream, left - 1, pause, due + pause)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _reply(self, data: bytes) -> None:
        self._write(data)
        self._busy = False
        if self._held:
            self._next()


# --- serving ---------------------------------------------------------------------------------------------------------


async def serve_mock(stack: contextlib.AsyncExitStack, port: int) -> dict[str, str]:
    """All wires on one port. The addresses, by kind."""
    server = await asyncio.get_running_loop().create_server(Mock, HOST, port, backlog=BACKLOG)
    stack.callback(server.close)
    address = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    return dict.fromkeys(KINDS, address)


async def serve_simulator(stack: contextlib.AsyncExitStack, port: int) -> dict[str, str]:
    """A simulated server for each kind, the OpenAI-compatible one on `port`. The addresses, by kind."""
    models = tuple(
        SimModel(name, context=1_000_000, tokens_per_second=1 / pause if pause else None)
        for name, pause in PAUSES.items()
    )
    found: dict[str, str] = {}
    for kind in KINDS:
        server = simulate(kind, Behaviour(models), host=HOST, port=port if kind == "openai" else 0)
        found[kind] = (await stack.enter_async_context(server)).base_url
    return found


SERVERS: Final = {"mock": serve_mock, "simulator": serve_simulator}


async def serve(which: str, port: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        addresses = await SERVERS[which](stack, port)
        print(orjson.dumps(addresses).decode(), flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=sorted(SERVERS))
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    asked = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(asked.which, asked.port))


if __name__ == "__main__":
    main()
