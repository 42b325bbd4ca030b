"""How many tokens the prompt of a request has at most, and what of it nobody can bound.

Part by part: a text by its bytes, an image by its model, a document where a bound exists. `strict` refuses what has no
bound; otherwise it is guessed, generously.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from app.core.card import Ability, Card
from app.core.errors import Unbounded
from app.core.messages import (
    MediaPart,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    Tool,
    ToolResultPart,
    ToolUsePart,
)
from app.core.request import Request
from app.core.tokens import TOKENS_PER_IMAGE, most
from app.spend.families import Family
from app.wire.messages.blocks import ttl_of

CALL_TOKENS_PER_BYTE: Final = 3
"""A call may be written out in tags, which name each of its arguments twice."""
TOOL_TOKENS_PER_BYTE: Final = 2
"""A tool's definition may be written out with indents, or in another language than JSON."""
GUESSED_DOCUMENT: Final = 100_000
GUESSED_BYTES_PER_SOUND_TOKEN: Final = 64

_CHAT_KINDS: Final = frozenset({"openai", "vllm"})
_TIERS: Final = frozenset({"auto", "default", "flex"})
"""What a request may say of its service tier without being billed at more than the list price. `auto` is what an
account is set to, which is its owner's to know."""
_SEARCHING: Final = "search"  # as in deep-research
"""In names of OpenAI's models that use tools of their own, billed by the call."""
_KNOWN_EXTRAS: Final[Mapping[str, frozenset[str]]] = {
    "chat": frozenset(
        {
            *("top_k", "min_p", "top_a", "typical_p", "repetition_penalty", "repeat_penalty", "min_tokens"),
            *("ignore_eos", "stop_token_ids", "include_stop_str_in_output", "skip_special_tokens", "bad_words"),
            *("spaces_between_special_tokens", "structured_outputs", "guided_json", "guided_regex", "guided_choice"),
            *("guided_grammar", "chat_template_kwargs", "thinking", "enable_thinking", "reasoning"),
            *("include_reasoning", "separate_reasoning", "priority", "cache_salt", "cache_control"),
        }
    ),
    "messages": frozenset({"cache_control"}),
}
"""Fields outside OpenAI's and Anthropic's common ones that do not change what a token costs, nor how many are billed
beyond `max_tokens`. Of any other nobody knows."""


def refuse_unbilled(request: Request, card: Card) -> None:
    """Raises `Unbounded` for what is billed otherwise than by the tokens of this request: tools at the maker's, other
    service tiers, sound, rejected predictions, and fields that nobody here knows."""
    if card.kind == "anthropic" and request.dialect == "messages":
        _refuse_extras(request, card, "messages")
    if card.kind not in _CHAT_KINDS:
        return
    if _SEARCHING in card.name:
        raise _unbounded(f"{card.name}, which searches by itself,", "model")
    if Ability.AUDIO_OUTPUT in request.needs:
        raise _unbounded("an answer in sound", "modalities")
    if request.hints.get("service_tier") not in (None, *_TIERS):
        raise _unbounded("another service tier", "service_tier")
    if request.hints.get("prediction") is not None:
        raise _unbounded("a prediction, whose rejected tokens are billed beyond max_tokens,", "prediction")
    if request.dialect == "chat":
        if request.extra:
            _refuse_extras(request, card, "chat")
        for index, message in enumerate(request.body.get("messages", ())):
            if "audio" in message and message["audio"] is not None:
                raise _unbounded("an earlier answer in sound", f"messages[{index}].audio")


def _refuse_extras(request: Request, card: Card, dialect: str) -> None:
    known, allow = _KNOWN_EXTRAS[dialect], card.quirks.get("allow")
    dropped = card.quirks.get("drop") or ()
    for name in request.extra:
        if name not in known and name not in dropped and (allow is None or name in allow):
            raise _unbounded(f"the field {name!r}", name)


def _unbounded(what: str, param: str) -> Unbounded:
    return Unbounded(
        f"What {what} may cost has no upper bound, so it cannot be used under a budget. An operator may allow it with "
        "budget.estimate: calibrated, which keeps budgets less strictly.",
        param=param,
    )


def prompt_tokens(request: Request, card: Card, family: Family, *, strict: bool) -> int:
    """At most as many as the upstream can bill. Never more than the window: a prompt beyond it is refused."""
    total = family.base
    for index, message in enumerate(request.messages):
        total += family.message + (most(message.name) if message.name else 0)
        for part in message.parts:
            tokens = most(part.text) if type(part) is TextPart else _part(part, index, family, strict)  # most are text
            total += family.message + tokens
    if request.tools:
        total += family.tools + sum(_tool(tool, family) for tool in request.tools)
        if any(tool.custom for tool in request.tools):  # whose grammar is in the body alone
            total += TOOL_TOKENS_PER_BYTE * _json(request.body.get("tools"))
    if request.format is not None:
        total += family.schema + TOOL_TOKENS_PER_BYTE * _json(request.format.schema)
    if request.extra and card.kind in _CHAT_KINDS and request.dialect == "chat":
        total += _json(request.extra)
    return total if family.window is None else min(total, family.window)


def _json(value: Any) -> int:
    return 0 if not value else most(orjson.dumps(value).decode())


def _tool(tool: Tool, family: Family) -> int:
    text = most(tool.name) + most(tool.description or "") + _json(tool.schema)
    return family.tool + TOOL_TOKENS_PER_BYTE * text


def _part(part: Part, at: int, family: Family, strict: bool) -> int:
    match part:
        case TextPart() | RefusalPart():
            return most(part.text)
        case ThinkingPart():
            return most(part.text) + most(part.signature or "") + most(part.redacted or "")
        case ToolUsePart():
            return most(part.id) + most(part.name) + CALL_TOKENS_PER_BYTE * most(part.arguments)
        case ToolResultPart():
            inside = sum(family.message + _part(each, at, family, strict) for each in part.parts)
            return most(part.call_id) + inside
        case MediaPart():
            return most(part.filename or "") + _media(part, at, family, strict)


def _media(part: MediaPart, at: int, family: Family, strict: bool) -> int:
    if part.kind == "image" and family.image is not None:
        return family.image
    if part.kind == "file" and part.data is not None and (part.media_type or "").startswith("text/"):
        return _document(part.data)
    if part.kind == "file" and family.window is not None:
        return family.window  # what does not fit is refused, and not billed
    if strict:
        raise _unbounded({"image": "an image", "audio": "sound"}.get(part.kind, "a document"), f"messages[{at}]")
    return _guess(part)


def _document(data: str) -> int:
    try:
        return most(base64.b64decode(data).decode(errors="replace"))
    except binascii.Error:
        return len(data)


def _guess(part: MediaPart) -> int:
    size = len(part.data or "") * 3 // 4
    match part.kind:
        case "image":
            return TOKENS_PER_IMAGE
        case "audio":
            return size // GUESSED_BYTES_PER_SOUND_TOKEN
        case _:
            return min(size, GUESSED_DOCUMENT) if size else GUESSED_DOCUMENT


def cached_for(request: Request, card: Card) -> str | None:
    """The longest time for which a prompt may be written to a cache, which costs more than reading it: `5m`, `1h`, or
    None. OpenAI's servers write without being asked."""
    if card.kind == "anthropic":
        return max(_markers(request), default=None, key=_LENGTH.__getitem__)
    if card.kind not in _CHAT_KINDS:
        return None
    longer = request.hints.get("prompt_cache_retention") or request.hints.get("prompt_cache_options")
    return "1h" if longer or "1h" in _markers(request) else "5m"


_LENGTH: Final = {"5m": 0, "1h": 1}


def _markers(request: Request) -> Iterator[str]:
    if request.dialect == "messages":
        yield from _in_body(request.body)
        return
    if "cache_control" in request.extra and (marker := ttl_of(request.extra["cache_control"])) is not None:
        yield marker
    for tool in request.tools:
        if tool.cache is not None:
            yield tool.cache
    for message in request.messages:
        for part in message.parts:
            if type(part) is not TextPart:
                yield from _of_part(part)
            elif part.cache is not None:
                yield part.cache


def _of_part(part: Part) -> Iterator[str]:
    if isinstance(part, (TextPart, MediaPart, ToolResultPart)):
        if part.cache is not None:
            yield part.cache
        if isinstance(part, ToolResultPart):
            for each in part.parts:
                yield from _of_part(each)


def _in_body(body: Mapping[str, Any]) -> Iterator[str]:
    """All markers of a body that is sent on as it is, wherever they stand."""
    left: list[Any] = [body]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            marker = value.get("cache_control")
            if marker is not None:
                yield "5m" if isinstance(marker, Mapping) and marker.get("ttl") in (None, "5m") else "1h"
            left += value.values()
        elif isinstance(value, list):
            left += value
