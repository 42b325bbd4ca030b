"""What the tests of Anthropic's wire share: cards, requests, and conversations recorded as data."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import orjson

from app.core.card import Card
from app.core.events import Event
from app.core.messages import Message, Part, TextPart, ToolResultPart, ToolUsePart
from app.core.request import Request, Terms
from app.wire import messages
from app.wire.codec import Outgoing

TERMS = Terms("req-1", "req-1")
FOLDER = Path(__file__).parent / "golden" / "messages"
GOLDEN = sorted(path.stem for path in FOLDER.glob("*.json"))

OLD, BUDGETED, CURRENT = "claude-sonnet-4-6", "claude-haiku-4-5-20251001", "claude-opus-5-5"


def card(name: str = CURRENT, **fields: Any) -> Card:
    fields = {"abilities": frozenset(), "local": False, **fields}
    return Card(id=f"claude/{name}", name=name, upstream="claude", kind="anthropic", **fields)


def said(role: str, *parts: Part | str) -> Message:
    return Message(role, tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def call(id: str, arguments: str = "{}", name: str = "f") -> ToolUsePart:
    return ToolUsePart(id, name, arguments)


def result(id: str, text: str = "ok") -> Message:
    return Message("tool", (ToolResultPart(id, (TextPart(text),)),))


def ask(*conversation: Message, **fields: Any) -> Request:
    """A request that did not come in this dialect."""
    return Request("auto", conversation or (said("user", "Hello"),), TERMS, "chat", {}, **fields)


def outgoing(request: Request, name: str = CURRENT) -> Outgoing:
    return messages.write_request(request, card(name))


def written(request: Request, name: str = CURRENT) -> dict[str, Any]:
    """The body as Claude gets it."""
    body: dict[str, Any] = orjson.loads(outgoing(request, name).body)
    return body


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (each["type"].encode(), orjson.dumps(each)) for each in events)


def begun(**usage: Any) -> dict[str, Any]:
    counts = {"input_tokens": 5, "output_tokens": 1, **usage}
    return {"type": "message_start", "message": {"id": "msg_1", "model": CURRENT, "content": [], "usage": counts}}


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    block = {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return [
        block,
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def ended(reason: Any = "end_turn", **usage: Any) -> list[dict[str, Any]]:
    counts = {"output_tokens": 3, **usage}
    return [
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": counts},
        {"type": "message_stop"},
    ]


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(edges)]


def read(*chunks: bytes, request: Request | None = None) -> list[Event]:
    """The events of a stream; raises where it raises."""
    request = request or ask(stream=True)
    reader = messages.reader(request, card(), outgoing(request))
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    return events + reader.end()


def whole(reply: Any, request: Request | None = None) -> list[Event]:
    """The events of a JSON reply."""
    request = request or ask()
    body = reply if isinstance(reply, bytes) else orjson.dumps(reply)
    return messages.read_reply(body, request, card(), outgoing(request))


def golden(name: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a recorded stream, and what goes with it: the reply without streaming, and what they add up to."""
    about: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return (FOLDER / f"{name}.sse").read_bytes(), about
