"""Tools, tool choice and response format of an OpenAI chat body -> core, the legacy `functions` included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.core.errors import InvalidValue
from app.core.messages import Format, Tool, ToolChoice
from app.wire.chat.parts import cache_of
from app.wire.fields import nonempty, objects, one_of, optional, required, wrong

_NAME_LIMIT: Final = 128
_MODES: Final = frozenset({"auto", "none", "required"})
_ALLOWED_MODES: Final = frozenset({"auto", "required"})


def is_legacy(body: Mapping[str, Any]) -> bool:
    """Whether the caller speaks of `functions`, and so wants a `function_call` back."""
    return bool(body.get("functions"))


def read_tools(body: Mapping[str, Any], limit: int) -> tuple[Tool, ...]:
    tools = optional(body, "tools", list)
    functions = optional(body, "functions", list)
    name = "functions" if functions else "tools"
    if tools and functions:
        raise InvalidValue("'functions' cannot be used together with 'tools'", param="functions")
    found = functions or tools or []
    if len(found) > limit:
        raise InvalidValue(f"'{name}' has {len(found)} items; at most {limit} are allowed", param=name)
    read = _function if functions else _tool
    return tuple(read(fields, at + ".") for at, fields in objects(found, name))


def _tool(tool: dict[str, Any], at: str) -> Tool:
    match tool.get("type"):
        case "function":
            return _function(required(tool, "function", dict, at), at + "function.", cache_of(tool, at))
        case "custom":
            custom = required(tool, "custom", dict, at)
            inner = at + "custom."
            return Tool(_name(custom, inner), optional(custom, "description", str, inner), custom=True)
        case kind:
            raise wrong(at + "type", "function or custom", kind)


def _function(function: dict[str, Any], at: str, cache: str | None = None) -> Tool:
    return Tool(
        _name(function, at),
        optional(function, "description", str, at),
        optional(function, "parameters", dict, at),
        optional(function, "strict", bool, at),
        cache=cache or cache_of(function, at),
    )


def _name(fields: Mapping[str, Any], at: str) -> str:
    name = nonempty(fields, "name", at)
    if len(name) > _NAME_LIMIT:
        raise InvalidValue(f"'{at}name' is longer than {_NAME_LIMIT} characters", param=at + "name")
    return name


def read_choice(body: Mapping[str, Any], tools: tuple[Tool, ...]) -> ToolChoice | None:
    """The tool choice; None where the caller made none or it says nothing without tools."""
    field = "function_call" if is_legacy(body) else "tool_choice"
    value = body.get(field)
    if value is None:
        return None
    choice = _choice(value, field)
    if not tools:
        if choice.forced:
            raise InvalidValue(f"'{field}' demands a tool, but there are none", param=field)
        return None
    known = {tool.name for tool in tools}
    for name in choice.names:
        if name not in known:
            raise InvalidValue(f"'{field}' names {name!r}, which is not among the tools", param=field)
    return choice


def _choice(value: Any, field: str) -> ToolChoice:
    if type(value) is str and value in _MODES:
        return ToolChoice(value)
    if type(value) is not dict:
        raise wrong(field, "none, auto, required or an object", value)
    if field == "function_call":
        return ToolChoice("named", (_name(value, "function_call."),))
    at = field + "."
    match value.get("type"):
        case "function" | "custom" as kind:
            return ToolChoice("named", (_name(required(value, kind, dict, at), f"{at}{kind}."),))
        case "allowed_tools":
            return _allowed(required(value, "allowed_tools", dict, at), at + "allowed_tools.")
        case kind:
            raise wrong(at + "type", "function, custom or allowed_tools", kind)


def _allowed(allowed: dict[str, Any], at: str) -> ToolChoice:
    mode = one_of(allowed, "mode", _ALLOWED_MODES, at) or "auto"
    names = []
    for path, entry in objects(required(allowed, "tools", list, at), at + "tools"):
        kind = entry.get("type")
        if kind != "function" and kind != "custom":
            raise wrong(path + ".type", "function or custom", kind)
        names.append(_name(required(entry, kind, dict, path + "."), f"{path}.{kind}."))
    if not names:
        raise InvalidValue(f"'{at}tools' must not be empty", param=at + "tools")
    return ToolChoice(mode, tuple(names))


def read_format(body: Mapping[str, Any]) -> Format | None:
    form = optional(body, "response_format", dict)
    if form is None:
        return None
    match form.get("type"):
        case "text":
            return None
        case "json_object":
            return Format("json_object")
        case "json_schema":
            at = "response_format.json_schema."
            spec = required(form, "json_schema", dict, "response_format.")
            schema, strict = required(spec, "schema", dict, at), optional(spec, "strict", bool, at)
            return Format("json_schema", schema, nonempty(spec, "name", at), strict)
        case kind:
            raise wrong("response_format.type", "text, json_object or json_schema", kind)
