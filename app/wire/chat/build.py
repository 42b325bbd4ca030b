"""Core messages, tools, choice and format -> OpenAI chat JSON, for callers of other dialects or legacy functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.core.messages import (
    Format,
    MediaPart,
    Message,
    RefusalPart,
    TextPart,
    ThinkingPart,
    Tool,
    ToolChoice,
    ToolResultPart,
    ToolUsePart,
)

Json = dict[str, Any]


def build_messages(messages: tuple[Message, ...]) -> list[Json]:
    """A `tool` message with several results becomes several messages; thinking is a `reasoning_content`."""
    return [built for message in messages for built in _message(message)]


def _message(message: Message) -> Iterator[Json]:
    rest = [part for part in message.parts if not isinstance(part, ToolResultPart)]
    for part in message.parts:
        if isinstance(part, ToolResultPart):
            yield {"role": "tool", "tool_call_id": part.call_id, "content": _content(part.parts)}
    if message.role == "tool" or (not rest and len(rest) < len(message.parts)):
        return
    built: Json = _assistant(message) if message.role == "assistant" else {"role": message.role}
    if message.role != "assistant":
        built["content"] = _content(tuple(part for part in rest if isinstance(part, (TextPart, MediaPart))))
    if message.name:
        built["name"] = message.name
    yield built


def _assistant(message: Message) -> Json:
    texts = tuple(part for part in message.parts if isinstance(part, TextPart))
    calls = [_call(part) for part in message.parts if isinstance(part, ToolUsePart)]
    thinking = "".join(part.text for part in message.parts if isinstance(part, ThinkingPart))
    refusal = "".join(part.text for part in message.parts if isinstance(part, RefusalPart))
    built: Json = {"role": "assistant", "content": _content(texts) if texts or not calls else None}
    if thinking:
        built["reasoning_content"] = thinking
    if refusal:
        built["refusal"] = refusal
    if calls:
        built["tool_calls"] = calls
    return built


def _call(part: ToolUsePart) -> Json:
    if part.custom:
        return {"id": part.id, "type": "custom", "custom": {"name": part.name, "input": part.arguments}}
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments or "{}"}}


def _content(parts: tuple[TextPart | MediaPart, ...]) -> str | list[Json]:
    """One text stays a plain string, which every server takes."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    return [{"type": "text", "text": part.text} if isinstance(part, TextPart) else _media(part) for part in parts]


def _media(part: MediaPart) -> Json:
    uri = f"data:{part.media_type or 'application/octet-stream'};base64,{part.data}"
    match part.kind:
        case "image":
            image = {"url": part.url or uri, "detail": part.detail}
            return {"type": "image_url", "image_url": _said(image)}
        case "audio":
            form = (part.media_type or "audio/wav").partition("/")[2]
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": form}}
        case _:
            file = {"filename": part.filename, "file_id": part.file_id, "file_data": uri if part.data else None}
            return {"type": "file", "file": _said(file)}


def _said(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def build_tools(tools: tuple[Tool, ...]) -> list[Json]:
    return [{"type": "custom", "custom": _tool(tool)} if tool.custom else _function(tool) for tool in tools]


def _function(tool: Tool) -> Json:
    schema = tool.schema if tool.schema is not None else {"type": "object", "properties": {}}
    return {"type": "function", "function": {**_tool(tool), "parameters": schema}}


def _tool(tool: Tool) -> Json:
    return _said({"name": tool.name, "description": tool.description, "strict": tool.strict})


def build_choice(choice: ToolChoice, tools: tuple[Tool, ...]) -> str | Json:
    custom = {tool.name for tool in tools if tool.custom}
    if not choice.names:
        return choice.mode
    named = [{"type": kind, kind: {"name": name}} for name in choice.names for kind in (_kind(name, custom),)]
    if choice.mode == "named":
        return named[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": named}}


def _kind(name: str, custom: set[str]) -> str:
    return "custom" if name in custom else "function"


def build_format(form: Format) -> Json:
    if form.kind != "json_schema":
        return {"type": form.kind}
    spec = _said({"name": form.name or "answer", "schema": form.schema, "strict": form.strict})
    return {"type": "json_schema", "json_schema": spec}
