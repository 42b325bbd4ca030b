"""A core Request -> the body an OpenAI-compatible upstream takes, with what that server cannot take left out by name.

A caller of the same dialect gets its own body sent on, so that fields we do not know survive. What a server wants
different is data in `card.quirks`:

    max_tokens_field   the one name it knows: max_tokens or max_completion_tokens (absent: as the caller said, else as
                       the model's maker has it)
    drop               top-level fields to leave out;  allow: the only top-level fields it takes
    developer_role     False: system instead
    reasoning_field    how it names earlier thinking in messages (absent: earlier thinking is left out)
    keep_extensions    it takes thinking_blocks, cache_control and prompt_cache_breakpoint
    no_stream_options  it does not know stream_options
    extra              fields always to send
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from app.core.card import Card
from app.core.request import Request
from app.wire.chat.build import build_choice, build_format, build_messages, build_tools
from app.wire.chat.tools import is_legacy
from app.wire.codec import Outgoing

Json = dict[str, Any]

_CACHE: Final = frozenset({"cache_control", "prompt_cache_breakpoint"})
_THINKING: Final = ("reasoning_content", "reasoning", "thinking_blocks")
_ALWAYS: Final = frozenset({"model", "messages", "stream"})
_ABOUT_TOOLS: Final = frozenset({"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"})
_NOTHING: Final = frozenset[str]()
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
_NEWER_OPENAI: Final = re.compile(r"gpt-[4-9]|o\d|chatgpt-")


def write_request(request: Request, card: Card) -> Outgoing:
    quirks = card.quirks
    body, ignored = _same(request) if request.dialect == "chat" else _translated(request)
    body["model"] = card.name
    body["messages"] = _messages(body["messages"], quirks, ignored)
    if not quirks.get("keep_extensions"):
        _strip_tools(body, ignored)
    _limit(request, body, quirks)
    _stream(request, body, quirks)
    _leave_out(request, body, ignored, quirks)
    if extra := quirks.get("extra"):
        body.update(extra)
    return Outgoing(orjson.dumps(body), ignored=tuple(ignored))


# `ignored` is a dict used as an ordered set: names in the caller's words, each once.
_Ignored = dict[str, None]


def _same(request: Request) -> tuple[Json, _Ignored]:
    # What is about tools says nothing without them, and strict servers refuse it.
    out = _NOTHING if request.tools else _ABOUT_TOOLS
    body = {name: value for name, value in request.body.items() if value is not None and name not in out}
    if is_legacy(body):
        for name in ("functions", "function_call"):
            body.pop(name, None)
        body |= _neutral(request)
        # A legacy reply has room for one call.
        body["parallel_tool_calls"] = False
    elif any(map(_is_legacy_turn, body["messages"])):
        body["messages"] = build_messages(request.messages)
    return body, {}


def _is_legacy_turn(message: Json) -> bool:
    return message.get("role") == "function" or ("function_call" in message and message["function_call"] is not None)


def _translated(request: Request) -> tuple[Json, _Ignored]:
    return _neutral(request) | dict(request.hints), dict.fromkeys(request.extra)


def _neutral(request: Request) -> Json:
    choice, form, logprobs = request.tool_choice, request.format, request.logprobs
    fields: Json = {
        "messages": build_messages(request.messages),
        "n": request.n if request.n > 1 else None,
        "stop": list(request.stop) or None,
        "tools": build_tools(request.tools) or None,
        "tool_choice": build_choice(choice, request.tools) if choice is not None else None,
        "parallel_tool_calls": request.parallel_tool_calls if request.tools else None,
        "response_format": build_format(form) if form is not None else None,
        "reasoning_effort": request.effort,
        "logprobs": True if logprobs is not None else None,
        "top_logprobs": logprobs or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _messages(messages: list[Json], quirks: Mapping[str, Any], ignored: _Ignored) -> list[Json]:
    keep, field = bool(quirks.get("keep_extensions")), quirks.get("reasoning_field")
    system = quirks.get("developer_role") is False
    result = []
    for message in messages:
        if system and message.get("role") == "developer":
            message = {**message, "role": "system"}
        if (not keep or field) and message.get("role") == "assistant":
            message = _thinking(message, field, ignored, keep)
        if not keep:
            message = _without_markers(message, ignored)
        result.append(message)
    return result


def _thinking(message: Json, field: str | None, ignored: _Ignored, keep: bool) -> Json:
    """Earlier thinking under the name the server reads, or not at all."""
    if not any(name in message for name in _THINKING):
        return message
    dropped = () if keep else ("thinking_blocks",)
    result = {name: value for name, value in message.items() if name not in (*_THINKING[:2], *dropped)}
    text = message.get("reasoning_content") or message.get("reasoning")
    if not text:
        text = "".join(block.get("thinking") or "" for block in message.get("thinking_blocks") or ())
    if field and text:
        result[field] = text
    elif text:
        ignored["reasoning_content"] = None
    if not keep and message.get("thinking_blocks"):
        ignored["thinking_blocks"] = None
    return result


def _without_markers(fields: Json, ignored: _Ignored) -> Json:
    fields = _bare(fields, ignored)
    content = fields.get("content")
    if type(content) is list and not all(map(_CACHE.isdisjoint, content)):
        fields = {**fields, "content": [_bare(part, ignored) for part in content]}
    return fields


def _bare(fields: Json, ignored: _Ignored) -> Json:
    if _CACHE.isdisjoint(fields):
        return fields
    ignored.update(dict.fromkeys(name for name in fields if name in _CACHE))
    return {name: value for name, value in fields.items() if name not in _CACHE}


def _strip_tools(body: Json, ignored: _Ignored) -> None:
    if "cache_control" in body:
        ignored["cache_control"] = None
        del body["cache_control"]
    tools = body.get("tools")
    if tools:
        body["tools"] = [_bare_tool(tool, ignored) for tool in tools]


def _bare_tool(tool: Json, ignored: _Ignored) -> Json:
    tool = _bare(tool, ignored)
    function = tool.get("function")
    if type(function) is dict and not _CACHE.isdisjoint(function):
        tool = {**tool, "function": _bare(function, ignored)}
    return tool


def _limit(request: Request, body: Json, quirks: Mapping[str, Any]) -> None:
    said = None
    for name in _LIMITS:
        if name in body:
            said = said or name
            del body[name]
    if request.max_tokens is not None:
        body[quirks.get("max_tokens_field") or said or _usual_limit(body["model"])] = request.max_tokens


def _usual_limit(model: str) -> str:
    """What a limit is called that the caller did not name: OpenAI's newer models know only their own word for it, other
    servers may pass over that one."""
    name = model.rsplit("/", 1)[-1]
    return "max_completion_tokens" if _NEWER_OPENAI.match(name) else "max_tokens"


def _leave_out(request: Request, body: Json, ignored: _Ignored, quirks: Mapping[str, Any]) -> None:
    drop, allow = quirks.get("drop") or (), quirks.get("allow")
    if not drop and allow is None:
        return
    for name in [name for name in body if name not in _ALWAYS]:
        if name not in drop and (allow is None or name in allow):
            continue
        del body[name]
        # What only we added, and usage (which the caller gets all the same), is nobody's loss.
        if name != "stream_options" and (name in request.body or request.dialect != "chat"):
            ignored[name] = None


def _stream(request: Request, body: Json, quirks: Mapping[str, Any]) -> None:
    """Usage is always asked for: answers are accounted whether or not the caller wants to see it."""
    body["stream"] = request.stream
    options = body.pop("stream_options", None) or {}
    if request.stream and not quirks.get("no_stream_options"):
        body["stream_options"] = {**options, "include_usage": True}
