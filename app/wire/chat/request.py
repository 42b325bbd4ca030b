"""The body of an OpenAI chat request -> a core Request.

Every field OpenAI knows is checked, so that a caller learns of a mistake before anything is called. What is only a hint
and what nobody here knows is set apart; the body itself travels along for upstreams of the same dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import orjson

from app.core.card import Ability
from app.core.errors import InvalidValue
from app.core.messages import (
    Format,
    MediaPart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    Tool,
    ToolChoice,
    ToolResultPart,
    ToolUsePart,
)
from app.core.request import Request, Terms
from app.core.secret import holds_key
from app.core.tokens import bytes_of
from app.wire.chat.messages import read_messages
from app.wire.chat.tools import read_choice, read_format, read_tools
from app.wire.codec import Limits
from app.wire.fields import integer, nonempty, number, one_of, optional, parse_body, wrong

EFFORTS: Final = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})
_MAX_CHOICES: Final = 128
_MAX_LOGPROBS: Final = 20
_MAX_STOPS: Final = 4
_MAX_TOKENS: Final = 10**9
"""More than any model writes, and little enough to be multiplied by choices and prices in 64 bits."""

_Check = Callable[[Mapping[str, Any], str], object]


def _text(fields: Mapping[str, Any], name: str) -> object:
    return optional(fields, name, str)


def _object(fields: Mapping[str, Any], name: str) -> object:
    return optional(fields, name, dict)


def _flag(fields: Mapping[str, Any], name: str) -> object:
    return optional(fields, name, bool)


def _within(low: float, high: float) -> _Check:
    return lambda fields, name: number(fields, name, low, high)


def _whole(fields: Mapping[str, Any], name: str) -> object:
    value = fields.get(name)
    if value is not None and type(value) is not int:
        raise wrong(name, "an integer", value)
    return value


HINTS: Final[Mapping[str, _Check]] = {
    "temperature": _within(0, 2),
    "top_p": _within(0, 1),
    "presence_penalty": _within(-2, 2),
    "frequency_penalty": _within(-2, 2),
    "seed": _whole,
    "logit_bias": _object,
    "user": _text,
    "safety_identifier": _text,
    "metadata": _object,
    "store": _flag,
    "service_tier": _text,
    "prediction": _object,
    "verbosity": _text,
    "moderation": _object,
    "prompt_cache_key": _text,
    "prompt_cache_retention": _text,
    "prompt_cache_options": _object,
}
"""Fields that may be dropped with a word, and what their values must be."""

_HANDLED: Final = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "response_format",
        "reasoning_effort",
        "logprobs",
        "top_logprobs",
        "modalities",
        "audio",
    }
)


def _model(fields: Mapping[str, Any]) -> str:
    model = nonempty(fields, "model")
    if holds_key(model):
        raise InvalidValue("'model' holds what looks like an API key.", param="model")
    return model


def read_request(body: bytes, terms: Terms, limits: Limits) -> Request:
    """Raises `InvalidJson`, `InvalidValue` or `RequestTooLarge`."""
    fields = parse_body(body, limits.body_bytes, limits.depth)
    model = _model(fields)
    messages = read_messages(fields, limits.messages)
    rare = _ABSENT if fields.keys() <= _USUAL else _rare(fields, limits)
    needs = needs_of(messages, rare.tools, rare.tool_choice, rare.format)
    hints, extra = _rest(fields)
    return Request(
        model=model,
        messages=messages,
        terms=terms,
        dialect="chat",
        body=fields,
        stream=optional(fields, "stream", bool) or False,
        include_usage="stream_options" in fields and _include_usage(fields),
        n=rare.n,
        max_tokens=_max_tokens(fields),
        stop=rare.stop,
        tools=rare.tools,
        tool_choice=rare.tool_choice,
        parallel_tool_calls=rare.parallel_tool_calls,
        format=rare.format,
        effort=rare.effort,
        logprobs=rare.logprobs,
        hints=hints,
        extra=extra,
        needs=needs | rare.needs if rare.needs else needs,
        input_bytes=text_size(messages, rare.tools, rare.format),
    )


_USUAL: Final = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", *HINTS}
)
"""Most requests have no other fields."""


class _Rare(NamedTuple):
    """What those say, and what a model must be able to do for it; by default as it is where they are absent."""

    n: int = 1
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    format: Format | None = None
    effort: str | None = None
    logprobs: int | None = None
    needs: frozenset[Ability] = frozenset()


_ABSENT: Final = _Rare()


def _rare(fields: Mapping[str, Any], limits: Limits) -> _Rare:
    tools = read_tools(fields, limits.tools)
    choice, form = read_choice(fields, tools), read_format(fields)
    n, stop, logprobs = integer(fields, "n", 1, _MAX_CHOICES) or 1, _stop(fields), _logprobs(fields)
    return _Rare(
        n=n,
        stop=stop,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=optional(fields, "parallel_tool_calls", bool),
        format=form,
        effort=one_of(fields, "reasoning_effort", EFFORTS),
        logprobs=logprobs,
        needs=_asked(
            {
                Ability.MANY: n > 1,
                Ability.STOP: bool(stop),
                Ability.LOGPROBS: logprobs is not None,
                Ability.AUDIO_OUTPUT: _wants_audio(fields),
            }
        ),
    )


def _include_usage(fields: Mapping[str, Any]) -> bool:
    options = optional(fields, "stream_options", dict) or {}
    return optional(options, "include_usage", bool, "stream_options.") or False


def _max_tokens(fields: Mapping[str, Any]) -> int | None:
    one = integer(fields, "max_tokens", 1, _MAX_TOKENS)
    other = integer(fields, "max_completion_tokens", 1, _MAX_TOKENS)
    return min(one, other) if one and other else one or other


def _stop(fields: Mapping[str, Any]) -> tuple[str, ...]:
    value = fields.get("stop")
    stops = [] if value is None else [value] if type(value) is str else value
    if type(stops) is not list or len(stops) > _MAX_STOPS or any(type(item) is not str for item in stops):
        raise wrong("stop", f"a string or an array of at most {_MAX_STOPS} strings", value)
    return tuple(item for item in stops if item)


def _logprobs(fields: Mapping[str, Any]) -> int | None:
    wanted = optional(fields, "logprobs", bool)
    alternatives = integer(fields, "top_logprobs", 0, _MAX_LOGPROBS)
    if alternatives and not wanted:
        raise InvalidValue("'top_logprobs' needs 'logprobs' to be true", param="top_logprobs")
    return (alternatives or 0) if wanted else None


def _wants_audio(fields: Mapping[str, Any]) -> bool:
    modalities = optional(fields, "modalities", list) or []
    optional(fields, "audio", dict)
    for item in modalities:
        if item not in ("text", "audio"):
            raise wrong("modalities", "an array of text and audio", modalities)
    return "audio" in modalities


def _rest(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    hints: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _HANDLED or value is None:
            continue
        check = HINTS.get(name)
        if check is None:
            extra[name] = value
        else:
            check(fields, name)
            hints[name] = value
    return hints, extra


def _asked(wanted: Mapping[Ability, bool]) -> frozenset[Ability]:
    return frozenset(ability for ability, asked in wanted.items() if asked)


_MEDIA: Final[Mapping[str, Ability]] = {"image": Ability.IMAGES, "audio": Ability.AUDIO, "file": Ability.FILES}


def needs_of(
    messages: tuple[Message, ...], tools: tuple[Tool, ...], choice: ToolChoice | None, form: Format | None
) -> frozenset[Ability]:
    """What a model must be able to do for these messages, tools and format. Fits any dialect."""
    needs: set[Ability] = set()
    for message in messages:
        for part in message.parts:
            if type(part) is TextPart:
                continue
            needs |= _NEEDS_OF_PART.get(type(part), _NOTHING)
            inner = part.parts if isinstance(part, ToolResultPart) else (part,)
            for item in inner:
                if isinstance(item, MediaPart):
                    needs |= {_MEDIA[item.kind]} | _asked(
                        {Ability.IMAGE_URLS: item.kind == "image" and item.data is None}
                    )
    if tools and (choice is None or choice.mode != "none"):
        needs.add(Ability.TOOLS)
        needs |= _asked({Ability.FORCED_TOOLS: choice is not None and choice.forced})
        needs |= _asked({Ability.CUSTOM_TOOLS: any(tool.custom for tool in tools)})
    if form is not None:
        needs.add(Ability.JSON_SCHEMA if form.kind == "json_schema" else Ability.JSON_OBJECT)
    if messages and messages[-1].role == "assistant":
        needs.add(Ability.PREFILL)
    return _CHAT | needs if needs else _CHAT  # the same one for most, whose hash is known


_CHAT: Final = frozenset({Ability.CHAT})
_NOTHING: Final[frozenset[Ability]] = frozenset()
_NEEDS_OF_PART: Final[Mapping[type, frozenset[Ability]]] = {
    ToolUsePart: frozenset({Ability.TOOLS}),
    ToolResultPart: frozenset({Ability.TOOLS}),
}


def text_size(messages: tuple[Message, ...], tools: tuple[Tool, ...], form: Format | None) -> int:
    """UTF-8 bytes of all text a model will read. Fits any dialect."""
    size = 0
    for message in messages:
        for part in message.parts:
            size += bytes_of(part.text) if type(part) is TextPart else _part_size(part)
    for tool in tools:
        size += bytes_of(tool.name) + bytes_of(tool.description or "")
        size += len(orjson.dumps(tool.schema)) if tool.schema else 0
    if form is not None and form.schema:
        size += len(orjson.dumps(form.schema))
    return size


def _part_size(part: Part) -> int:
    match part:
        case TextPart() | ThinkingPart() | RefusalPart():
            return bytes_of(part.text)
        case ToolUsePart():
            return bytes_of(part.name) + bytes_of(part.arguments)
        case ToolResultPart():
            return sum(bytes_of(item.text) for item in part.parts if isinstance(item, TextPart))
        case MediaPart():
            return 0
