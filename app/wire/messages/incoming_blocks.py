"""Anthropic's content blocks, as a client sends them -> core parts.

What a role may hold, and how turns become messages, is `messages_incoming`. Blocks of tools that run at Anthropic's
are refused: only there do they mean anything.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from app.core.errors import InvalidValue, UnsupportedParameter
from app.core.messages import MediaPart, Part, TextPart, ThinkingPart, ToolResultPart, ToolUsePart
from app.wire.fields import nonempty, objects, one_of, optional, required
from app.wire.messages.blocks import IMAGE_TYPES, PDF, ttl_of

_IMAGE_SOURCES: Final = frozenset({"base64", "url", "file"})
_DOCUMENT_SOURCES: Final = _IMAGE_SOURCES | {"text", "content"}
_RESULT_BLOCKS: Final = frozenset({"text", "image", "document", "search_result"})


def read_blocks(value: Any, at: str, allowed: frozenset[str]) -> list[Part]:
    """The parts of a `content`, which may be a string. `at` is its path."""
    if isinstance(value, str):
        return [TextPart(value)]
    if not isinstance(value, list):
        raise InvalidValue(f"'{at}' must be a string or an array of blocks", param=at)
    parts: list[Part] = []
    for path, block in objects(value, at):
        kind = required(block, "type", str, path + ".")
        if kind not in allowed:
            raise _not_here(kind, path + ".type", allowed)
        parts.append(_READERS[kind](block, path + "."))
    return parts


def _not_here(kind: str, path: str, allowed: frozenset[str]) -> Exception:
    if kind.startswith("server_tool") or kind.endswith("_tool_result"):
        return UnsupportedParameter("tools that run at the model's maker are not supported", param=path)
    return InvalidValue(f"'{path}' must be one of {', '.join(sorted(allowed))}", param=path)


def cache_of(block: Mapping[str, Any], at: str) -> str | None:
    return ttl_of(optional(block, "cache_control", dict, at))


def _word(fields: dict[str, Any], name: str, allowed: frozenset[str], at: str) -> str:
    required(fields, name, str, at)
    return one_of(fields, name, allowed, at) or ""


def _text(block: dict[str, Any], at: str) -> Part:
    return TextPart(required(block, "text", str, at), cache_of(block, at))


def _image(block: dict[str, Any], at: str) -> Part:
    source, inner = required(block, "source", dict, at), at + "source."
    cache = cache_of(block, at)
    match _word(source, "type", _IMAGE_SOURCES, inner):
        case "base64":
            media_type = _word(source, "media_type", frozenset(IMAGE_TYPES), inner)
            return MediaPart("image", media_type, nonempty(source, "data", inner), cache=cache)
        case _:
            return _referenced("image", source, inner, None, cache)


def _document(block: dict[str, Any], at: str) -> Part:
    source, inner = required(block, "source", dict, at), at + "source."
    title, cache = optional(block, "title", str, at), cache_of(block, at)
    match _word(source, "type", _DOCUMENT_SOURCES, inner):
        case "base64":
            _word(source, "media_type", frozenset({PDF}), inner)
            return MediaPart("file", PDF, nonempty(source, "data", inner), filename=title, cache=cache)
        case "text":
            return _plain_text(required(source, "data", str, inner), title, cache)
        case "content":
            texts = read_blocks(source.get("content"), inner + "content", frozenset({"text"}))
            return _plain_text("\n".join(part.text for part in texts if isinstance(part, TextPart)), title, cache)
        case _:
            return _referenced("file", source, inner, title, cache)


def _plain_text(text: str, title: str | None, cache: str | None) -> Part:
    data = base64.b64encode(text.encode("utf-8", "replace")).decode()
    return MediaPart("file", "text/plain", data, filename=title, cache=cache)


def _referenced(kind: str, source: dict[str, Any], at: str, title: str | None, cache: str | None) -> Part:
    if source.get("type") == "url":
        return MediaPart(kind, url=nonempty(source, "url", at), filename=title, cache=cache)
    return MediaPart(kind, file_id=nonempty(source, "file_id", at), filename=title, cache=cache)


def _search_result(block: dict[str, Any], at: str) -> Part:
    head = f"{required(block, 'title', str, at)}\n{required(block, 'source', str, at)}"
    texts = read_blocks(block.get("content"), at + "content", frozenset({"text"}))
    body = [part.text for part in texts if isinstance(part, TextPart)]
    return TextPart("\n".join([head, *body]), cache_of(block, at))


def _tool_use(block: dict[str, Any], at: str) -> Part:
    arguments = orjson.dumps(required(block, "input", dict, at)).decode()
    return ToolUsePart(nonempty(block, "id", at), nonempty(block, "name", at), arguments)


def _tool_result(block: dict[str, Any], at: str) -> Part:
    content = block.get("content")
    parts = [] if content is None else read_blocks(content, at + "content", _RESULT_BLOCKS)
    return ToolResultPart(
        nonempty(block, "tool_use_id", at),
        tuple(part for part in parts if isinstance(part, (TextPart, MediaPart))),
        is_error=optional(block, "is_error", bool, at) or False,
        cache=cache_of(block, at),
    )


def _thinking(block: dict[str, Any], at: str) -> Part:
    return ThinkingPart(required(block, "thinking", str, at), signature=required(block, "signature", str, at) or None)


def _redacted(block: dict[str, Any], at: str) -> Part:
    return ThinkingPart("", redacted=required(block, "data", str, at))


_READERS: Final[Mapping[str, Callable[[dict[str, Any], str], Part]]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
}
