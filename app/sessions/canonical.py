"""Tells whether two messages of the chat dialect say the same, however their clients wrote them down. Pure.

Clients repeat what they were answered with small differences: null fields, one text part instead of a string, thinking
left out, arguments of tool calls with other spaces, cache markers that wander. Those do not count. Any other word does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from app.wire.fields import parse

Json = Mapping[str, Any]

UNSAID: Final = frozenset({"cache_control", "prompt_cache_breakpoint"})
DIGEST_BYTES: Final = 16
ROLES: Final = {"developer": "system", "function": "tool"}


def digest(message: Json) -> bytes:
    """The same for messages that say the same."""
    role = message.get("role")
    shape = [
        ROLES.get(role, role) if isinstance(role, str) else None,
        message.get("name"),
        message.get("tool_call_id"),
        _content(message.get("content")),
        message.get("refusal") or None,
        _calls(message),
    ]
    return hashlib.blake2b(orjson.dumps(shape, option=orjson.OPT_SORT_KEYS), digest_size=DIGEST_BYTES).digest()


def _content(content: Any) -> list[Any]:
    """Its parts; texts side by side are one text, and no text is no part."""
    parts = [content] if isinstance(content, str) else content if isinstance(content, list) else []
    found: list[Any] = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else part
        if not isinstance(text, str):
            found.append(_said(part))
        elif found and isinstance(found[-1], str):
            found[-1] += text
        elif text:
            found.append(text)
    return found


def _said(value: Any) -> Any:
    """An object without what says nothing."""
    if not isinstance(value, dict):
        return value
    return {name: _said(inner) for name, inner in value.items() if inner is not None and name not in UNSAID}


def _calls(message: Json) -> list[Any]:
    calls = message.get("tool_calls")
    found = [_call(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    legacy = message.get("function_call")
    return [*found, [None, *_named(legacy)]] if isinstance(legacy, dict) else found


def _call(call: Json) -> list[Any]:
    inner = call.get("function") or call.get("custom")
    return [call.get("id"), *(_named(inner) if isinstance(inner, dict) else ())]


def _named(call: Json) -> tuple[Any, Any]:
    text = call.get("arguments", call.get("input"))
    if not isinstance(text, str):
        return call.get("name"), text
    try:
        return call.get("name"), parse(text.encode()) if text.strip() else {}
    except ValueError:  # free text, or JSON that was cut
        return call.get("name"), text
