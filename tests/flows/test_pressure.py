"""Two hundred clients, of whom some read nothing and some hardly anything: that is felt by their own upstreams, and by
nobody else. The gateway is a process of its own, so that its memory can be looked at."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx2
import orjson
import pytest

from tests.flows.asking import within
from tests.flows.process import Gateway
from tests.flows.raw import RawClient, chat, post

MODEL: Final = "openai/m"
PATIENCE: Final = 10
BUFFER: Final = 131_072
OWN_BYTES: Final = 65_536
"""What this side of the upstream's connections holds, and the clients' own buffers."""
ENDLESS_BYTES: Final = 3_000_000
KIB: Final = "x" * 1_000


class Reply:
    """One streamed reply: how much of it was taken, and whether somebody keeps it from going on."""

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.sent = 0
        self.blocked = self.over = False


class Upstream:
    """Speaks as much of OpenAI's wire as it takes to stream, over sockets that hold next to nothing."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if b": " in line)
                body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
                if head.startswith(b"GET"):
                    said = orjson.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]})
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                    writer.write(b"content-length: %d\r\n\r\n" % len(said) + said)
                else:
                    await self.stream(writer, fields[b"x-request-id"].decode(), orjson.loads(body))
        writer.close()

    async def stream(self, writer: asyncio.StreamWriter, request_id: str, asked: dict[str, Any]) -> None:
        reply = self.replies[request_id] = Reply(request_id)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        endless = asked["messages"][-1]["content"] == "endless"
        frame = _frame({"choices": [{"index": 0, "delta": {"content": KIB if endless else "word "}}]})
        try:
            for _ in range(ENDLESS_BYTES // len(frame) if endless else 40):
                writer.write(frame)
                reply.sent += len(frame)
                reply.blocked = True
                await writer.drain()
                reply.blocked = False
                await asyncio.sleep(0 if endless else 0.005)
            writer.write(_frame({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
            writer.write(_frame({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 40}}))
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        finally:
            reply.over = True


def _frame(fields: dict[str, Any]) -> bytes:
    event = b"data: " + orjson.dumps({"id": "c", "object": "chat.completion.chunk", "model": "m", **fields}) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


@contextlib.asynccontextmanager
async def gateway_over_it(folder: Path) -> AsyncIterator[tuple[Gateway, Upstream]]:
    upstream, listener = Upstream(), socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # which what it accepts inherits
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(upstream.serve, sock=listener, limit=1_048_576, backlog=1_024)
    gateway = Gateway(
        folder, f"http://127.0.0.1:{listener.getsockname()[1]}", MODEL, buffer_bytes=BUFFER, send_timeout=120
    )
    try:
        await gateway.start()
        yield gateway, upstream
    finally:
        await asyncio.to_thread(gateway.close)
        server.close()
        await asyncio.sleep(0)


async def quick(gateway: Gateway, count: int) -> list[str]:
    """So many clients that read as they should."""
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "quick"}]}
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=60, limits=limits) as client:

        async def one() -> str:
            for _ in range(PATIENCE):
                reply = await client.post(f"{gateway.url}/v1/chat/completions", json=body)
                if reply.status_code != 503:  # a machine that is busy with other things is told to come again
                    break
                await asyncio.sleep(float(reply.headers.get("retry-after", "1")))
            return reply.text

        return list(await asyncio.gather(*(one() for _ in range(count))))


async def metric(gateway: Gateway, name: str) -> float:
    async with httpx2.AsyncClient() as client:
        text = (await client.get(f"{gateway.url}/metrics")).text
    rows = [line for line in text.splitlines() if line.partition("{")[0].partition(" ")[0] == name]
    return sum(float(row.rpartition(" ")[2]) for row in rows)


def megabytes(gateway: Gateway) -> float:
    pages = int(Path(f"/proc/{gateway.command.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def broken(answers: list[str]) -> list[str]:
    return [text for text in answers if text.count('"content":"word "') != 40 or not text.endswith("data: [DONE]\n\n")]


class Slow:
    """A client of an endless answer, that reads so many bytes every tenth of a second."""

    def __init__(self, name: str, pace: int) -> None:
        self.name = name
        self.read = 0
        self._pace = pace
        self.client: RawClient

    async def run(self, port: int) -> None:
        self.client = await RawClient.connect(port, receive_buffer=4_096)
        body = chat(MODEL, "endless", stream=True)
        await self.client.send(post(body, x_request_id=self.name))
        loop = asyncio.get_running_loop()
        while self._pace:
            self.read += len(await loop.sock_recv(self.client._connection, self._pace))
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def slow_clients(gateway: Gateway) -> AsyncIterator[list[Slow]]:
    port = int(gateway.url.rpartition(":")[2])
    found = [Slow(f"slow-{number}", 0 if number % 2 else 100) for number in range(40)]
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(each.run(port)) for each in found]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in found:
            each.client.vanish()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="buffers and memory are as Linux has them")
async def test_who_reads_slowly_slows_nobody_else_down(tmp_path: Path) -> None:
    async with gateway_over_it(tmp_path) as (gateway, upstream):
        assert not broken(await quick(gateway, 160)), "it is warm now"
        before = megabytes(gateway)

        async with slow_clients(gateway) as slow:

            async def all_are_blocked() -> bool:
                replies = [upstream.replies.get(each.name) for each in slow]
                return all(reply is not None and reply.blocked for reply in replies)

            await within(30, all_are_blocked, "the upstream's writes to the slow ones block")
            assert not broken(await quick(gateway, 160)), "the others get every word"
            assert await all_are_blocked()
            for each in slow:
                reply = upstream.replies[each.name]
                assert reply.sent - each.read <= BUFFER + OWN_BYTES, "more is held than was said"
                assert not reply.over, "whoever reads at all, or has time left, is not dropped"
            assert any(each.read > 0 for each in slow)
            assert megabytes(gateway) - before < 20
            assert await metric(gateway, "tierway_backpressure_events_total") >= 40
            assert 40 * 4_096 < await metric(gateway, "tierway_stream_buffer_bytes") <= 40 * BUFFER
            assert await metric(gateway, "tierway_streams_active") == 40

        async def is_over() -> bool:
            open_ones = await metric(gateway, "tierway_streams_active")
            return not open_ones and all(upstream.replies[each.name].over for each in slow)

        await within(20, is_over, "what nobody reads any more is cancelled")

        async def is_counted() -> bool:
            gone = await metric(gateway, "tierway_clients_gone_total")
            return gone == 40 and not await metric(gateway, "tierway_stream_buffer_bytes")

        await within(20, is_counted, "those who left are counted, and nothing of theirs is held")
        assert await metric(gateway, "tierway_backpressure_seconds_total") > 0
        gateway.command.process.terminate()
        assert await gateway.ended() == 0
        used, held = await gateway.standing()
        assert used > 320 * 40 * Decimal("0.00012") and held == 0, "those who left pay for what was made for them"
