"""Writes a conversation as Anthropic's content blocks: text, media, tools and their results, thinking, cache markers.

Everything here is about one block or one list of them. What makes a turn of them, and which calls have results, is
`messages_turns`; the other parameters are `messages_params`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any, Final

from app.core.errors import InvalidValue, UnsupportedParameter
from app.core.messages import MediaPart, TextPart, ThinkingPart, Tool, ToolUsePart
from app.wire.fields import parse
from app.wire.messages.schema import transform

Block = dict[str, Any]

IMAGE_TYPES: Final = {
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/png": "image/png",
    "image/gif": "image/gif",
    "image/webp": "image/webp",
}
PDF: Final = "application/pdf"
FILE_ID: Final = "file_"  # what ids of files uploaded to Anthropic begin with; OpenAI's begin with file-
MAX_MARKERS: Final = 4
MAX_STRICT_TOOLS: Final = 20
_SAFE_ID: Final = re.compile(r"[a-zA-Z0-9_-]+\Z")
_UNSAFE: Final = re.compile(r"[^a-zA-Z0-9_-]")


class Markers:
    """The cache markers of a request, in the order the model reads it. The API takes four, hour-long ones first."""

    def __init__(self) -> None:
        self._marked: list[tuple[Block, str]] = []

    def put(self, block: Block, ttl: str | None) -> Block:
        if ttl is not None:
            self._marked.append((block, ttl))
        return block

    def settle(self, slots: int = MAX_MARKERS) -> None:
        """Writes the last markers that there is room for: they cover the longest prefixes."""
        short = False
        for block, ttl in self._marked[-slots:]:
            short = short or ttl == "5m"
            block["cache_control"] = cache_control("5m" if short else ttl)


def cache_control(ttl: str) -> dict[str, str]:
    return {"type": "ephemeral", "ttl": "1h"} if ttl == "1h" else {"type": "ephemeral"}


def ttl_of(control: Any) -> str | None:
    """How long a `cache_control` object asks to keep a prefix: `5m` or `1h`; None for what is no such object."""
    if not isinstance(control, dict):
        return None
    return "5m" if control.get("ttl") in (None, "5m") else "1h"


class ToolIds:
    """Makes ids of tool calls safe, unique, and back again.

    Ids of other upstreams may hold any character and repeat from turn to turn; here each call needs its own plain id.
    `originals` maps each id that was changed back to the caller's.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._reserved = {each for each in ids if _SAFE_ID.match(each)}
        self._used: set[str] = set()
        self.originals: dict[str, str] = {}

    def safe(self, original: str) -> str:
        """The id to send for one more call that the caller knows as `original`."""
        if original in self._reserved and original not in self._used:
            self._used.add(original)
            return original
        stem = _UNSAFE.sub("_", original) or "call"
        number, safe = 1, stem
        while safe in self._used or safe in self._reserved:
            number += 1
            safe = f"{stem}_{number}"
        self._used.add(safe)
        self.originals[safe] = original
        return safe


def text_blocks(parts: Iterable[TextPart], markers: Markers) -> list[Block]:
    """The texts that hold anything: the API refuses empty and blank ones."""
    return [markers.put({"type": "text", "text": part.text}, part.cache) for part in parts if part.text.strip()]


def thinking_block(part: ThinkingPart) -> Block | None:
    """The block as Claude made it; None for thinking of another model, which bears no signature."""
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    if part.signature:
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    return None


def tool_use_block(part: ToolUsePart, id: str, param: str) -> Block:
    if part.custom:
        raise UnsupportedParameter("calls of custom tools are not supported by this model", param=param)
    try:
        arguments = parse(part.arguments.encode("utf-8", "replace")) if part.arguments.strip() else {}
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidValue("the arguments of a tool call must be a JSON object", param=param)
    return {"type": "tool_use", "id": id, "name": part.name, "input": arguments}


def media_block(part: MediaPart, param: str) -> Block:
    match part.kind:
        case "image":
            return _image(part, param)
        case "file":
            return _file(part, param)
    raise UnsupportedParameter("audio is not supported by this model", param=param)


def _image(part: MediaPart, param: str) -> Block:
    if part.data is None:
        return {"type": "image", "source": _reference(part, param)}
    media_type = IMAGE_TYPES.get((part.media_type or "").lower())
    if media_type is None:
        raise UnsupportedParameter("images must be JPEG, PNG, GIF or WebP for this model", param=param)
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": part.data}}


def _file(part: MediaPart, param: str) -> Block:
    media_type = (part.media_type or _type_by_name(part.filename)).lower()
    if media_type in IMAGE_TYPES:
        return _image(part, param)
    block: Block = {"type": "document", "source": _document(part, media_type, param)}
    if part.filename:
        block["title"] = part.filename
    return block


def _document(part: MediaPart, media_type: str, param: str) -> Block:
    if part.data is None:
        return _reference(part, param)
    if media_type == PDF:
        return {"type": "base64", "media_type": PDF, "data": part.data}
    if not media_type.startswith("text/"):
        raise UnsupportedParameter("files must be PDF or plain text for this model", param=param)
    try:
        text = base64.b64decode(part.data).decode()
    except (binascii.Error, ValueError):
        raise InvalidValue("a text file must be base64 of UTF-8", param=param) from None
    return {"type": "text", "media_type": "text/plain", "data": text}


def _reference(part: MediaPart, param: str) -> Block:
    if part.url is not None and part.url.lower().startswith(("https://", "http://")):
        return {"type": "url", "url": part.url}
    if part.file_id is not None and part.file_id.startswith(FILE_ID):
        return {"type": "file", "file_id": part.file_id}
    raise UnsupportedParameter("this model reads inline data, web addresses and files uploaded to it", param=param)


def _type_by_name(filename: str | None) -> str:
    name = (filename or "").lower()
    return PDF if name.endswith(".pdf") else "text/plain" if name.endswith((".txt", ".md", ".csv")) else ""


def tool_blocks(tools: Iterable[Tool], markers: Markers, *, schema: bool) -> list[Block]:
    """The definitions of tools. `schema`: whether the model can be held to a schema (`strict`)."""
    offered = list(tools)
    strict = schema and sum(bool(tool.strict) for tool in offered) <= MAX_STRICT_TOOLS
    return [_tool(tool, f"tools[{index}]", markers, strict=strict) for index, tool in enumerate(offered)]


def _tool(tool: Tool, param: str, markers: Markers, *, strict: bool) -> Block:
    if tool.custom:
        raise UnsupportedParameter("custom tools are not supported by this model", param=param)
    held = strict and tool.strict is True
    schema = {"type": "object", **(tool.schema or {"properties": {}})}
    if schema["type"] != "object":
        raise InvalidValue("the parameters of a tool must be an object", param=param)
    block: Block = {"name": tool.name}
    if tool.description:
        block["description"] = tool.description
    block["input_schema"] = transform(schema, param) if held else schema
    if held:
        block["strict"] = True
    return markers.put(block, tool.cache)
