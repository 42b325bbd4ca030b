"""Reads a request as Ollama's `/api/chat` takes it: the server's half of the wire, for fakes and tests.

Options that have an OpenAI name become hints, the others and Ollama's own fields stay in `extra` under their own
names; `body` keeps everything as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import orjson

from app.core.card import Ability
from app.core.errors import InvalidJson, InvalidValue, RequestTooLarge
from app.core.messages import (
    Format,
    MediaPart,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    Tool,
    ToolResultPart,
    ToolUsePart,
)
from app.core.request import Request, Terms
from app.wire.bounds import check_pieces
from app.wire.codec import Limits
from app.wire.fields import TooDeep, parse

_ROLES: Final = frozenset({"system", "user", "assistant", "tool"})
_HINTS: Final = frozenset({"temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"})
_FIELDS: Final = frozenset(
    {"model", "messages", "stream", "tools", "format", "options", "think", "logprobs", "top_logprobs"}
)
_EFFORT_OF: Final[Mapping[bool | str, str]] = {False: "none", True: "medium"}
_IMAGE_TYPES: Final = (
    ("iVBOR", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lG", "image/gif"),
    ("UklG", "image/webp"),
)

T = TypeVar("T")


def read_request(body: bytes, terms: Terms, limits: Limits) -> Request:
    """Raises `InvalidJson` or `InvalidValue`, naming the field in `param`."""
    if len(body) > limits.body_bytes:
        raise RequestTooLarge(f"the body is larger than {limits.body_bytes} bytes")
    try:
        fields = parse(body, limits.depth)
    except TooDeep:
        raise InvalidJson(f"the body is nested deeper than {limits.depth} levels") from None
    except ValueError as error:
        raise InvalidJson(f"the body is not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidJson("the body is not a JSON object")
    messages = _messages(fields, limits)
    tools = _tools(fields, limits)
    options = _field(fields, "options", dict, {}, "options")
    format_ = _format(fields.get("format"))
    effort = _effort(fields.get("think"))
    logprobs = _field(fields, "top_logprobs", int, 0, "top_logprobs") if fields.get("logprobs") else None
    stop = _stop(options.get("stop"))
    most = _field(options, "num_predict", int, -1, "options.num_predict")
    request = Request(
        model=_required(fields, "model", str, "model"),
        messages=messages,
        terms=terms,
        dialect="ollama",
        body=fields,
        stream=_field(fields, "stream", bool, True, "stream"),
        max_tokens=most if most >= 0 else None,
        stop=stop,
        tools=tools,
        format=format_,
        effort=effort,
        logprobs=logprobs,
        hints={name: value for name, value in options.items() if name in _HINTS},
        extra={
            **{name: value for name, value in options.items() if name not in _HINTS and name not in _NEUTRAL},
            **{name: value for name, value in fields.items() if name not in _FIELDS},
        },
        needs=frozenset(_needs(messages, tools, format_, effort, logprobs, stop)),
        input_bytes=sum(_bytes(message) for message in messages) + len(orjson.dumps(fields.get("tools"))),
    )
    return request


_NEUTRAL: Final = frozenset({"stop", "num_predict"})


def _messages(fields: Mapping[str, Any], limits: Limits) -> tuple[Message, ...]:
    """No messages at all are allowed: that only loads the model."""
    entries = _field(fields, "messages", list, [], "messages")
    if len(entries) > limits.messages:
        raise InvalidValue(f"there are more than {limits.messages} messages", param="messages")
    check_pieces(entries)
    return tuple(_message(entry, f"messages[{index}]") for index, entry in enumerate(entries))


def _message(entry: Any, path: str) -> Message:
    fields = _typed(entry, dict, path)
    role = _required(fields, "role", str, f"{path}.role")
    if role not in _ROLES:
        raise InvalidValue(f"{path}.role must be one of {', '.join(sorted(_ROLES))}", param=f"{path}.role")
    text = _field(fields, "content", str, "", f"{path}.content")
    content: list[TextPart | MediaPart] = [TextPart(text)] if text else []
    for index, image in enumerate(_field(fields, "images", list, [], f"{path}.images")):
        content.append(_image(_typed(image, str, f"{path}.images[{index}]")))
    if role == "tool":
        call_id = _field(fields, "tool_call_id", str, "", f"{path}.tool_call_id")
        return Message(role, (ToolResultPart(call_id, tuple(content)),))
    parts: list[Part] = []
    if thinking := _field(fields, "thinking", str, "", f"{path}.thinking"):
        parts.append(ThinkingPart(thinking))
    parts += content
    for index, call in enumerate(_field(fields, "tool_calls", list, [], f"{path}.tool_calls")):
        parts.append(_call(call, f"{path}.tool_calls[{index}]"))
    return Message(role, tuple(parts))


def _image(data: str) -> MediaPart:
    kind = next((kind for start, kind in _IMAGE_TYPES if data.startswith(start)), None)
    return MediaPart("image", kind, data)


def _call(entry: Any, path: str) -> ToolUsePart:
    fields = _typed(entry, dict, path)
    function = _required(fields, "function", dict, f"{path}.function")
    arguments = _field(function, "arguments", dict, {}, f"{path}.function.arguments")
    name = _required(function, "name", str, f"{path}.function.name")
    return ToolUsePart(_field(fields, "id", str, "", f"{path}.id"), name, _dumped(arguments, path))


def _tools(fields: Mapping[str, Any], limits: Limits) -> tuple[Tool, ...]:
    entries = _field(fields, "tools", list, [], "tools")
    if len(entries) > limits.tools:
        raise InvalidValue(f"there are more than {limits.tools} tools", param="tools")
    return tuple(_tool(entry, f"tools[{index}]") for index, entry in enumerate(entries))


def _tool(entry: Any, path: str) -> Tool:
    function = _required(_typed(entry, dict, path), "function", dict, f"{path}.function")
    return Tool(
        _required(function, "name", str, f"{path}.function.name"),
        _field(function, "description", str, None, f"{path}.function.description"),
        _field(function, "parameters", dict, None, f"{path}.function.parameters"),
    )


def _format(value: Any) -> Format | None:
    if value is None or value == "":
        return None
    if value == "json":
        return Format("json_object")
    if isinstance(value, dict):
        return Format("json_schema", value)
    raise InvalidValue('format must be "json" or a JSON schema', param="format")


def _effort(think: Any) -> str | None:
    if think is None:
        return None
    if isinstance(think, bool):
        return _EFFORT_OF[think]
    if think in ("low", "medium", "high", "max"):
        return str(think)
    raise InvalidValue("think must be true, false, low, medium, high or max", param="think")


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    words = [value] if isinstance(value, str) else _typed(value, list, "options.stop")
    return tuple(_typed(word, str, "options.stop") for word in words)


def _needs(
    messages: tuple[Message, ...],
    tools: tuple[Tool, ...],
    format_: Format | None,
    effort: str | None,
    logprobs: int | None,
    stop: tuple[str, ...],
) -> list[Ability]:
    images = any(isinstance(part, MediaPart) for message in messages for part in message.parts)
    wanted = {
        Ability.TOOLS: bool(tools),
        Ability.IMAGES: images,
        Ability.JSON_OBJECT: format_ is not None and format_.kind == "json_object",
        Ability.JSON_SCHEMA: format_ is not None and format_.kind == "json_schema",
        Ability.REASONING: effort not in (None, "none"),
        Ability.LOGPROBS: logprobs is not None,
        Ability.STOP: bool(stop),
    }
    return [Ability.CHAT, *(ability for ability, is_wanted in wanted.items() if is_wanted)]


def _bytes(message: Message) -> int:
    total = 0
    for part in message.parts:
        match part:
            case TextPart(text=text) | ThinkingPart(text=text) | ToolUsePart(arguments=text):
                total += len(text.encode())
            case ToolResultPart(parts=parts):
                total += sum(len(inner.text.encode()) for inner in parts if isinstance(inner, TextPart))
    return total


def _dumped(arguments: Mapping[str, Any], path: str) -> str:
    try:
        return orjson.dumps(arguments).decode()
    except orjson.JSONEncodeError:
        raise InvalidValue(f"{path} is nested too deeply", param=path) from None


def _field(fields: Mapping[str, Any], name: str, kind: type[T], default: Any, path: str) -> Any:
    value = fields.get(name)
    return default if value is None else _typed(value, kind, path)


def _required(fields: Mapping[str, Any], name: str, kind: type[T], path: str) -> T:
    value = _typed(fields.get(name), kind, path)
    if not value:
        raise InvalidValue(f"{path} is required", param=path)
    return value


def _typed(value: Any, kind: type[T], path: str) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidValue(f"{path} must be of type {kind.__name__}", param=path)
    return value
