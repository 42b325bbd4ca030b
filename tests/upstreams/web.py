"""Fake OpenAI-like servers over real HTTP: what they answer is data, and they remember what they were asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from app.core.request import EmbeddingRequest, Request, Terms
from app.wire import chat, embeddings
from app.wire.codec import Limits

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """One request that a server got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Fake:
    """`routes` maps "METHOD /path" to (status, content type, body), or to a function. What it has no route for is 404,
    or 405 where it has one of another method, as with FastAPI."""

    routes: dict[str, tuple[int, str, bytes] | Answer]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.method, request.path, headers, await request.read()))
        answer = self.routes.get(f"{request.method} {request.path}")
        if answer is None:
            known = any(route.endswith(f" {request.path}") for route in self.routes)
            return web.json_response({"detail": "Not Found"}, status=405 if known else 404)
        if callable(answer):
            return await answer(request)
        status, content_type, body = answer
        return web.Response(status=status, content_type=content_type, body=body)


@contextlib.asynccontextmanager
async def serving(*fakes: Fake) -> AsyncIterator[None]:
    """Gives each fake a port of its own."""
    async with contextlib.AsyncExitStack() as stack:
        for fake in fakes:
            runner = web.ServerRunner(web.Server(fake.handle), shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield


def as_json(value: Any, status: int = 200) -> tuple[int, str, bytes]:
    return status, "application/json", orjson.dumps(value)


def as_stream(*chunks: Any, done: bool = True) -> tuple[int, str, bytes]:
    """Server-sent events, one per chunk."""
    frames = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks]
    return 200, "text/event-stream", b"".join(frames) + (b"data: [DONE]\n\n" if done else b"")


def chunk(delta: Mapping[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": dict(delta or {}), "finish_reason": finish}]
    return {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": choices, **fields}


def usage(prompt: int = 3, completion: int = 2) -> dict[str, Any]:
    counted = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**chunk(), "choices": [], "usage": counted}


def question(*, stream: bool = True, terms: Terms | None = None, **fields: Any) -> Request:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "stream": stream, **fields}
    return chat.read_request(orjson.dumps(body), terms or Terms("r1", "r1"), Limits())


def texts(*inputs: str, terms: Terms | None = None) -> EmbeddingRequest:
    return embeddings.read_request(orjson.dumps({"model": "e", "input": list(inputs)}), terms or Terms("r1", "r1"))


def vectors(count: int) -> tuple[int, str, bytes]:
    data = [{"object": "embedding", "index": index, "embedding": [float(index), 1.0]} for index in range(count)]
    return as_json({"object": "list", "data": data, "model": "e", "usage": {"prompt_tokens": 4, "total_tokens": 4}})
