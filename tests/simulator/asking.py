"""What the tests of the simulator ask with: bodies and headers for every kind of server."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson

from app.core.request import Request, Terms
from app.simulator.behaviour import DEFAULTS
from app.simulator.record import Call
from app.simulator.script import Script
from app.simulator.simulated import Simulated
from app.wire import chat
from app.wire.codec import Limits

KINDS = ("ollama", "vllm", "anthropic", "openai")
PATHS = {
    "ollama": "/api/chat",
    "vllm": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "openai": "/v1/chat/completions",
}
HEADERS = {"x-api-key": "any", "anthropic-version": "2026-10-21"}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]


def body(kind: str, text: str = "hello there", **more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": DEFAULTS[kind].models[0].name,
        "messages": [{"role": "user", "content": text}],
        "stream": False,
        **more,
    }
    if kind == "anthropic":
        fields.setdefault("max_tokens", 1_000)
    elif kind != "ollama" and fields["stream"]:
        fields.setdefault("stream_options", {"include_usage": True})
    return fields


def tools(kind: str) -> list[dict[str, Any]]:
    if kind != "anthropic":
        return TOOLS
    empty = {"type": "object", "properties": {}}
    return [{"name": "weather", "input_schema": WEATHER}, {"name": "now", "input_schema": empty}]


def call(kind: str, fields: dict[str, Any] | bytes, **headers: str) -> Call:
    raw = fields if isinstance(fields, bytes) else orjson.dumps(fields)
    return Call("POST", PATHS[kind], "", {**HEADERS, **headers}, raw)


def get(path: str, query: str = "") -> Call:
    return Call("GET", path, query, dict(HEADERS), b"")


def script(sim: Simulated, asked: Call) -> Script:
    """What the server would play."""
    return sim.answer(asked)


def request(text: str = "hello there", **more: Any) -> Request:
    fields = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    return chat.read_request(orjson.dumps(fields), Terms("r1", "r1"), Limits())


async def post(sim: Simulated, fields: dict[str, Any], path: str | None = None) -> tuple[int, str, bytes]:
    """Status, content type and body of a reply over a real socket."""
    url = sim.base_url + (path or PATHS[sim.kind])
    async with aiohttp.ClientSession(headers=HEADERS) as session, session.post(url, json=fields) as reply:
        return reply.status, reply.content_type, await reply.read()
