"""The body of a request to `/v1/messages` -> a core Request.

What has a twin in the neutral nouns is read and checked; the body itself travels along for upstreams of the same
dialect. Single blocks are `messages_incoming_blocks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.core.card import Ability
from app.core.errors import InvalidValue, UnsupportedParameter
from app.core.messages import Format, Message, Part, Tool, ToolChoice, ToolResultPart
from app.core.request import Request, Terms
from app.wire.bounds import check_pieces
from app.wire.chat.request import needs_of, text_size
from app.wire.codec import Limits
from app.wire.fields import integer, nonempty, number, objects, one_of, optional, parse_body, required, wrong
from app.wire.messages.effort import effort_of
from app.wire.messages.incoming_blocks import cache_of, read_blocks
from app.wire.messages.params import DIALECT, SERVICE_TIERS
from app.wire.messages.rules import EFFORTS

_ROLES: Final = frozenset({"user", "assistant", "system"})
_TEXT: Final = frozenset({"text"})
_ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "user": frozenset({"text", "image", "document", "search_result", "tool_result"}),
    "assistant": frozenset({"text", "thinking", "redacted_thinking", "tool_use"}),
    "system": _TEXT,
}
_CHOICES: Final[Mapping[str, str]] = {"auto": "auto", "none": "none", "any": "required", "tool": "named"}
_THINKING: Final = frozenset({"adaptive", "enabled", "disabled", "between_tools"})
_OPENAI_TIER: Final[Mapping[str, str]] = {theirs: ours for ours, theirs in SERVICE_TIERS.items()}
_HANDLED: Final = frozenset(
    {
        "model",
        "messages",
        "system",
        "max_tokens",
        "stream",
        "stop_sequences",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "temperature",
        "top_p",
        "top_k",
        "metadata",
        "service_tier",
    }
)


def read_request(body: bytes, terms: Terms, limits: Limits) -> Request:
    """Raises `InvalidJson`, `InvalidValue`, `UnsupportedParameter` or `RequestTooLarge`."""
    fields = parse_body(body, limits.body_bytes, limits.depth)
    max_tokens = integer(fields, "max_tokens", 0)
    if max_tokens is None:
        raise wrong("max_tokens", "an integer", None)
    turns = _messages(fields, limits)
    messages = (*_system(fields), *turns)
    tools = _tools(fields, limits)
    choice, parallel = _choice(fields)
    effort, form = _output(fields)
    stop = _stop(fields)
    needs = needs_of(messages, tools, choice, form)
    return Request(
        model=nonempty(fields, "model"),
        messages=messages,
        terms=terms,
        dialect=DIALECT,
        body=fields,
        stream=optional(fields, "stream", bool) or False,
        include_usage=True,
        max_tokens=max_tokens,
        stop=stop,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        format=form,
        effort=effort,
        hints=_hints(fields),
        extra={name: value for name, value in fields.items() if name not in _HANDLED and value is not None},
        needs=needs | {Ability.STOP} if stop else needs,
        input_bytes=text_size(messages, tools, form),
    )


def _system(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    value = fields.get("system")
    parts = [] if value is None else read_blocks(value, "system", _TEXT)
    return (Message("system", tuple(parts)),) if parts else ()


def _messages(fields: Mapping[str, Any], limits: Limits) -> list[Message]:
    entries = required(fields, "messages", list)
    if not entries:
        raise InvalidValue("'messages' must hold at least one message", param="messages")
    if len(entries) > limits.messages:
        raise InvalidValue(f"'messages' must hold at most {limits.messages} messages", param="messages")
    check_pieces(entries, fields.get("system"))
    found: list[Message] = []
    for path, entry in objects(entries, "messages"):
        role = one_of(entry, "role", _ROLES, path + ".")
        if role is None:
            raise wrong(path + ".role", "a string", None)
        parts = read_blocks(entry.get("content"), path + ".content", _ALLOWED[role])
        found += _split(role, parts)
    return found


def _split(role: str, parts: list[Part]) -> list[Message]:
    """A turn as messages: the results of tools are a message of their own, before what the user says."""
    results = tuple(part for part in parts if isinstance(part, ToolResultPart))
    if not results:
        return [Message(role, tuple(parts))]
    said = tuple(part for part in parts if not isinstance(part, ToolResultPart))
    return [Message("tool", results), *([Message(role, said)] if said else [])]


def _tools(fields: Mapping[str, Any], limits: Limits) -> tuple[Tool, ...]:
    entries = optional(fields, "tools", list) or []
    if len(entries) > limits.tools:
        raise InvalidValue(f"'tools' must hold at most {limits.tools} tools", param="tools")
    return tuple(_tool(entry, path + ".") for path, entry in objects(entries, "tools"))


def _tool(entry: dict[str, Any], at: str) -> Tool:
    if optional(entry, "type", str, at) not in (None, "custom"):
        raise UnsupportedParameter("tools that run at the model's maker are not supported", param=at + "type")
    return Tool(
        nonempty(entry, "name", at),
        optional(entry, "description", str, at),
        required(entry, "input_schema", dict, at),
        optional(entry, "strict", bool, at),
        cache=cache_of(entry, at),
    )


def _choice(fields: Mapping[str, Any]) -> tuple[ToolChoice | None, bool | None]:
    """The choice, and whether several calls at once are allowed (None: not said)."""
    choice = optional(fields, "tool_choice", dict)
    if choice is None:
        return None, None
    kind = one_of(choice, "type", frozenset(_CHOICES), "tool_choice.")
    if kind is None:
        raise wrong("tool_choice.type", "a string", None)
    names = (nonempty(choice, "name", "tool_choice."),) if kind == "tool" else ()
    single = optional(choice, "disable_parallel_tool_use", bool, "tool_choice.")
    return ToolChoice(_CHOICES[kind], names), None if single is None else not single


def _output(fields: Mapping[str, Any]) -> tuple[str | None, Format | None]:
    """Effort and format."""
    thinking = optional(fields, "thinking", dict)
    if thinking is not None:
        one_of(thinking, "type", _THINKING, "thinking.")
        integer(thinking, "budget_tokens", 0, at="thinking.")
    config = optional(fields, "output_config", dict) or {}
    effort = effort_of(thinking, one_of(config, "effort", frozenset(EFFORTS), "output_config."))
    form = optional(config, "format", dict, "output_config.")
    if form is None:
        return effort, None
    at = "output_config.format."
    one_of(form, "type", frozenset({"json_schema"}), at)
    return effort, Format("json_schema", required(form, "schema", dict, at))


def _stop(fields: Mapping[str, Any]) -> tuple[str, ...]:
    words = optional(fields, "stop_sequences", list) or []
    if any(type(word) is not str for word in words):
        raise wrong("stop_sequences", "an array of strings", words)
    return tuple(words)


def _hints(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Hints by their OpenAI names."""
    metadata = optional(fields, "metadata", dict) or {}
    tier = one_of(fields, "service_tier", frozenset(_OPENAI_TIER))
    hints: dict[str, Any] = {
        "temperature": number(fields, "temperature", 0, 1),
        "top_p": number(fields, "top_p", 0, 1),
        "top_k": integer(fields, "top_k", 0),
        "user": optional(metadata, "user_id", str, "metadata."),
        "service_tier": _OPENAI_TIER.get(tier or ""),
    }
    return {name: value for name, value in hints.items() if value is not None}
