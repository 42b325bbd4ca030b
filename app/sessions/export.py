"""A session for its owner's eyes: as JSON whose messages can be sent again as they are, and as Markdown to read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from app.sessions.said import Kept, Said

Json = Mapping[str, Any]

FENCES: Final = re.compile(r"`{3,}")
NAMES: Final = {"assistant": "Assistant", "user": "User", "tool": "Tool", "function": "Tool"}


def as_json(session: str, kept: Kept) -> bytes:
    about = {
        "id": session,
        "object": "session",
        "created_at": int(kept.created_at),
        "updated_at": int(kept.updated_at),
        "model": kept.model,
        "turns": kept.turns,
        "dropped_messages": kept.dropped,
        "messages": [*kept.system, *kept.messages],
    }
    return orjson.dumps(about)


def as_markdown(session: str, kept: Kept) -> str:
    pieces = [f"# Session {session}"]
    if kept.dropped:
        pieces.append(f"*The {kept.dropped} oldest messages are no longer kept.*")
    for message in kept.system:
        pieces += ["## System", *_content(message.get("content"))]
    for each in kept.said:
        pieces += _section(each)
    return "\n\n".join(pieces) + "\n"


def _section(each: Said) -> Iterator[str]:
    message = each.message
    role = str(message.get("role"))
    name = NAMES.get(role, role.capitalize())
    yield f"## {name} ({each.by})" if each.by else f"## {name}"
    if isinstance(message.get("reasoning_content"), str):
        yield "<details><summary>Reasoning</summary>"
        yield from _content(message["reasoning_content"])
        yield "</details>"
    yield from _content(message.get("content"))
    yield from _content(message.get("refusal"))
    for call in message.get("tool_calls") or ():
        inner = call.get("function") or call.get("custom") or {}
        yield f"Calls `{inner.get('name')}`:"
        yield fenced(str(inner.get("arguments", inner.get("input", ""))), "json")


def _content(content: Any) -> Iterator[str]:
    for part in [content] if isinstance(content, str) else content or ():
        if isinstance(part, str):
            if part:
                yield part
        elif isinstance(part.get("text"), str):
            yield part["text"]
        else:
            yield f"*[{part.get('type')}]*"


def fenced(text: str, language: str = "") -> str:
    """A block of code that nothing in the text can end."""
    longest = max(map(len, FENCES.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
