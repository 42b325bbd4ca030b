"""What the tests of Ollama's wire share: a card, requests, and conversations recorded as data."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import orjson

from app.core.card import Ability, Card
from app.core.errors import GatewayError
from app.core.events import Event
from app.core.messages import Message, TextPart
from app.core.request import Request, Terms
from app.wire import ollama

TERMS = Terms("req-1", "req-1")
GOLDEN = sorted((Path(__file__).parent / "golden" / "ollama").glob("*.json"))


def card(num_ctx: int | None = 4096, **quirks: Any) -> Card:
    told = {} if num_ctx is None else {"num_ctx": num_ctx}
    return Card(
        id="ollama/rnj-1",
        name="rnj-1",
        upstream="ollama",
        kind="ollama",
        local=True,
        abilities=frozenset({Ability.CHAT, Ability.TOOLS, Ability.REASONING}),
        quirks={**told, **quirks},
    )


def user(text: str) -> Message:
    return Message("user", (TextPart(text),))


def ask(*messages: Message, **fields: Any) -> Request:
    said = messages or (user("What is it?"),)
    size = sum(len(message.text.encode()) for message in said)
    fields = {"stream": True, "input_bytes": size, **fields}
    return Request("rnj-1", said, TERMS, "chat", {}, **fields)


def written(request: Request, to: Card | None = None) -> dict[str, Any]:
    """The body as Ollama gets it."""
    body: dict[str, Any] = orjson.loads(ollama.write_request(request, to or card()).body)
    return body


def lines(*replies: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(reply) + b"\n" for reply in replies)


def done(**fields: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", **fields}


def said(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "done": False}


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(edges)]


def read(chunks: list[bytes], request: Request | None = None, of: Card | None = None) -> list[Event]:
    """The events of a stream; raises where it raises."""
    request, of = request or ask(), of or card()
    reader = ollama.reader(request, of, ollama.write_request(request, of))
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    return events + reader.end()


def read_with_fault(
    chunks: list[bytes], request: Request | None = None, of: Card | None = None
) -> tuple[list[Event], GatewayError | None]:
    """The events given before a fault, and the fault."""
    request, of = request or ask(), of or card()
    reader = ollama.reader(request, of, ollama.write_request(request, of))
    events: list[Event] = []
    try:
        for chunk in chunks:
            events += reader.feed(chunk)
        events += reader.end()
    except GatewayError as error:
        return events, error
    return events, None


def whole(reply: Any, request: Request | None = None, of: Card | None = None) -> list[Event]:
    """The events of a JSON reply."""
    request, of = request or ask(stream=False), of or card()
    body = reply if isinstance(reply, bytes) else orjson.dumps(reply)
    return ollama.read_reply(body, request, of, ollama.write_request(request, of))


def golden(path: Path) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(path.read_text())
    return recorded
