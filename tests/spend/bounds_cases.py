"""What the tests of bounds and charges share: cards, requests, and a bound to charge against."""

from __future__ import annotations

from typing import Any

import orjson

from app.core.card import Ability, Card
from app.core.request import Request, Terms
from app.spend.bounds import Bound
from app.wire import chat, messages
from app.wire.codec import Limits

TERMS = Terms("req-1", "req-1")
BOUND = Bound(1_000, 200, 200)


def card(name: str = "claude-opus-5-5", kind: str = "anthropic", **fields: Any) -> Card:
    fields = {"abilities": frozenset(Ability), **fields}
    return Card(id=f"up/{name}", name=name, upstream="up", kind=kind, local=False, **fields)


GPT = card("gpt-6-luna", "openai")
OTHER = card("deepseek-chat", "openai")


def ask(*content: Any, **fields: Any) -> Request:
    """A request of an OpenAI client, whose one message has these parts."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content or ("Go.",)]
    body = {"model": "auto", "messages": [{"role": "user", "content": parts}], **fields}
    return chat.read_request(orjson.dumps(body), TERMS, Limits())


def ask_claude(**fields: Any) -> Request:
    """A request of an Anthropic client."""
    body = {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": "Go."}], **fields}
    return messages.read_request(orjson.dumps(body), TERMS, Limits())


def tool(name: str = "f", **schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **schema}}}


def image(url: str = "data:image/png;base64,AAAA") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def file(**fields: Any) -> dict[str, Any]:
    return {"type": "file", "file": fields}


PDF = file(filename="a.pdf", file_data="data:application/pdf;base64,AAAA")
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA" * 1_000, "format": "wav"}}
