"""OpenAI chat messages -> core messages, legacy `function` messages and thinking blocks included.

Checks types and names the place of what is wrong; whether the conversation makes sense is the upstream's to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from app.core.errors import InvalidValue
from app.core.messages import Message, Part, RefusalPart, TextPart, ThinkingPart, ToolResultPart, ToolUsePart
from app.wire.bounds import check_pieces
from app.wire.chat.parts import cache_of, read_parts
from app.wire.fields import nonempty, objects, optional, required, wrong

_TEXT: Final = frozenset({"text"})
_ASSISTANT: Final = frozenset({"text", "refusal"})
_ANY: Final = frozenset({"text", "image_url", "input_audio", "file"})


def read_messages(body: Mapping[str, Any], limit: int) -> tuple[Message, ...]:
    """The messages of a chat body."""
    messages = required(body, "messages", list)
    if not messages:
        raise InvalidValue("'messages' must not be empty", param="messages")
    if len(messages) > limit:
        raise InvalidValue(f"'messages' has {len(messages)} items; at most {limit} are allowed", param="messages")
    check_pieces(messages)
    found: list[Message] = []
    for index, fields in enumerate(messages):
        if type(fields) is dict and len(fields) == 2:  # most messages are no more than a role and a text
            role, text = fields.get("role"), fields.get("content")
            if type(role) is str and role in _PLAIN and type(text) is str:
                found.append(Message(role, (TextPart(text),)))
                continue
        at = f"messages[{index}]"
        if type(fields) is not dict:
            raise InvalidValue(f"'{at}' must be an object", param=at)
        role = fields.get("role")
        read = _ROLES.get(role) if type(role) is str else None
        if read is None:
            raise wrong(at + ".role", "one of " + ", ".join(_ROLES), role)
        found.append(read(fields, at + ".", found))
    return tuple(found)


def _content(fields: dict[str, Any], at: str, allowed: frozenset[str]) -> list[Any]:
    content = fields.get("content")
    if type(content) is str:
        return [TextPart(content, cache_of(fields, at))]
    if type(content) is list:
        parts = read_parts(content, at + "content", allowed)
        cache = cache_of(fields, at)
        if cache is not None and parts and isinstance(parts[-1], TextPart) and parts[-1].cache is None:
            parts[-1] = TextPart(parts[-1].text, cache)
        return parts
    raise wrong(at + "content", "a string or an array of parts", content)


def _instruction(fields: dict[str, Any], at: str, _before: list[Message]) -> Message:
    return Message(fields["role"], tuple(_content(fields, at, _TEXT)), optional(fields, "name", str, at))


def _user(fields: dict[str, Any], at: str, _before: list[Message]) -> Message:
    return Message("user", tuple(_content(fields, at, _ANY)), optional(fields, "name", str, at))


def _tool(fields: dict[str, Any], at: str, _before: list[Message]) -> Message:
    call_id = nonempty(fields, "tool_call_id", at)
    parts = _content(fields, at, _ANY)
    marked = next((part.cache for part in reversed(parts) if part.cache), None)
    return Message("tool", (ToolResultPart(call_id, tuple(parts), cache=marked),), optional(fields, "name", str, at))


def _function(fields: dict[str, Any], at: str, before: list[Message]) -> Message:
    name = nonempty(fields, "name", at)
    parts = [] if fields.get("content") is None else _content(fields, at, _TEXT)
    return Message("tool", (ToolResultPart(_legacy_call(before, name), tuple(parts)),), name)


def _legacy_call(before: list[Message], name: str) -> str:
    """The id of the call that a `function` message answers: the latest one of that name."""
    for message in reversed(before):
        for part in reversed(message.parts):
            if isinstance(part, ToolUsePart) and part.name == name:
                return part.id
    return f"call_{name}"


def _assistant(fields: dict[str, Any], at: str, before: list[Message]) -> Message:
    parts: list[Part] = _thinking(fields, at)
    if fields.get("content") is not None:
        parts += _content(fields, at, _ASSISTANT)
    refusal = optional(fields, "refusal", str, at)
    if refusal:
        parts.append(RefusalPart(refusal))
    for path, call in objects(optional(fields, "tool_calls", list, at) or [], at + "tool_calls"):
        parts.append(_call(call, path + "."))
    legacy = optional(fields, "function_call", dict, at)
    if legacy is not None:
        name, arguments = _named(legacy, at + "function_call.", "arguments")
        parts.append(ToolUsePart(f"call_{len(before)}", name, arguments))
    optional(fields, "audio", dict, at)
    return Message("assistant", tuple(parts), optional(fields, "name", str, at))


def _call(call: dict[str, Any], at: str) -> ToolUsePart:
    call_id = nonempty(call, "id", at)
    kind = call.get("type", "function")
    if kind == "custom":
        name, text = _named(required(call, "custom", dict, at), at + "custom.", "input")
        return ToolUsePart(call_id, name, text, custom=True)
    if kind != "function":
        raise wrong(at + "type", "function or custom", kind)
    name, arguments = _named(required(call, "function", dict, at), at + "function.", "arguments")
    return ToolUsePart(call_id, name, arguments)


def _named(call: dict[str, Any], at: str, arguments: str) -> tuple[str, str]:
    return nonempty(call, "name", at), required(call, arguments, str, at)


def _thinking(fields: dict[str, Any], at: str) -> list[Part]:
    blocks = optional(fields, "thinking_blocks", list, at)
    if blocks:
        return [_block(block, path + ".") for path, block in objects(blocks, at + "thinking_blocks")]
    text = optional(fields, "reasoning_content", str, at) or optional(fields, "reasoning", str, at)
    return [ThinkingPart(text)] if text else []


def _block(block: dict[str, Any], at: str) -> ThinkingPart:
    match block.get("type"):
        case "thinking":
            signature = optional(block, "signature", str, at)
            return ThinkingPart(required(block, "thinking", str, at), signature)
        case "redacted_thinking":
            return ThinkingPart("", redacted=required(block, "data", str, at))
        case kind:
            raise wrong(at + "type", "thinking or redacted_thinking", kind)


_ROLES: Final[Mapping[str, Callable[[dict[str, Any], str, list[Message]], Message]]] = {
    "system": _instruction,
    "developer": _instruction,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool,
    "function": _function,
}
_PLAIN: Final = frozenset({"system", "developer", "user", "assistant"})
"""Whose messages may be a text alone."""
