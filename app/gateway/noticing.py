"""Looks at an answer while it passes, and keeps no more of it than a judgement needs. Pure.

The relay shows each event (an append and an addition); everything that costs is done once, at the end: whether JSON
parses where it had to, code can be parsed, the answer refuses, or its end is the same few words over and over.
"""

from __future__ import annotations

import ast
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from app.core.events import Event, Text, ToolCall
from app.core.outcome import Noticed
from app.core.request import AnyRequest, Request

TAIL_CHARS: Final = 4_096
WHOLE_CHARS: Final = 65_536  # of text that had to be JSON, and of the arguments of all calls
CALLS_MAX: Final = 16
REFUSAL_CHARS: Final = 600  # a longer answer that opens like a refusal goes on to help
REPEATED_CHARS: Final = 600
REPEATED_SHRINKS: Final = 16  # zlib makes a loop of words this much smaller; tables and lists stay far below
BLOCKS_MAX: Final = 4
REQUIRED_MAX: Final = 100
FENCE: Final = "```"

REFUSAL: Final = re.compile(
    r"\W*(?:i['’]?m sorry|i am sorry|sorry|i apologi[sz]e|unfortunately|as an ai\b[^.,]{0,40})?[,.:;—-]*\s*(?:but\s+)?"
    r"i\s*(?:can['’]?t|cannot|can not|won['’]?t|(?:am|['’]m) (?:unable|not able) to)\s+(?:\w+\s+)?"
    r"(?:help|assist|comply|provide|fulfil|do that|answer|create|write|generate|discuss|support|continue)",
    re.IGNORECASE,
)
BLOCK: Final = re.compile(
    r"^```[ \t]*(python|py|json)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL | re.IGNORECASE
)
ELIDED: Final = re.compile(r"^\s*(?:>>>|\.\.\.|[$%!]|In \[)|//|<[a-z_ ]+>", re.MULTILINE)
"""Signs that a block is a session or an excerpt, which nobody meant to be parsed."""


class Noticing:
    """One answer's. Of several choices the first is looked at. `see` is for the hot path, `noticed` for afterwards."""

    __slots__ = ("_calls", "_calls_chars", "_cut", "_flagged", "_kept", "_most", "_pieces", "_request", "_size")

    def __init__(self, request: AnyRequest) -> None:
        self._request = request
        demanded = isinstance(request, Request) and request.format is not None
        self._kept = WHOLE_CHARS if demanded else TAIL_CHARS
        self._most = 4 * self._kept  # of their size, until they are cut
        self._pieces: list[str] = []
        self._size = 0  # of the pieces
        self._cut = False  # there was more
        self._flagged = False
        self._calls: dict[int, tuple[str, bool, list[str]]] = {}
        self._calls_chars = 0

    def see(self, event: Event) -> None:
        if type(event) is Text:  # cheaper than isinstance, and nobody derives from events
            if not event.choice:
                if event.refusal:
                    self._flagged = True
                text = event.text
                self._pieces.append(text)
                self._size += len(text)
                if self._size > self._most:
                    self._shorten()
        elif type(event) is ToolCall and not event.choice:
            self._see_call(event)

    def _shorten(self) -> None:
        self._pieces = ["".join(self._pieces)[-self._kept :]]
        self._size, self._cut = self._kept, True

    def _see_call(self, event: ToolCall) -> None:
        self._calls_chars += len(event.arguments)
        if self._calls_chars > WHOLE_CHARS:
            return
        call = self._calls.get(event.call)
        if call is not None:
            call[2].append(event.arguments)
        elif len(self._calls) < CALLS_MAX:
            self._calls[event.call] = (event.name or "", event.custom, [event.arguments])

    def noticed(self) -> Noticed | None:
        """None for what was no chat."""
        request = self._request
        if not isinstance(request, Request):
            return None
        text = "".join(self._pieces)[-self._kept :]
        tail = text[-TAIL_CHARS:]
        whole = not self._cut and self._size <= self._kept
        called = bool(self._calls) or self._calls_chars > 0
        return Noticed(
            refused=self._flagged or (whole and not called and is_refusal(text)),
            repeating=is_repeating(tail),
            bare=not called and not text.strip(),
            limited=request.max_tokens is not None,
            parses=self._parses(request, text, whole, called) if called or request.format is not None else None,
            compiles=compiles(tail) if FENCE in tail else None,
        )

    def _parses(self, request: Request, text: str, whole: bool, called: bool) -> bool | None:
        known = (self._arguments_parse(request), self._answer_parses(request, text, whole, called))
        verdicts = [verdict for verdict in known if verdict is not None]
        return all(verdicts) if verdicts else None

    def _arguments_parse(self, request: Request) -> bool | None:
        if self._calls_chars > WHOLE_CHARS:
            return None
        schemas = {tool.name: tool.schema for tool in request.tools}
        verdicts = [
            name in schemas and has_shape("".join(pieces) or "{}", schemas[name] or {"type": "object"})
            for name, custom, pieces in self._calls.values()
            if not custom
        ]
        return all(verdicts) if verdicts else None

    def _answer_parses(self, request: Request, text: str, whole: bool, called: bool) -> bool | None:
        demanded = request.format
        if demanded is None or not whole or self._flagged or (called and not text):
            return None
        return has_shape(text, demanded.schema or {"type": "object"})


def has_shape(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether it is JSON and, where the schema asks for an object, one with the fields it requires."""
    try:
        value = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return False
    if schema.get("type") != "object":
        return True
    required = schema.get("required")
    names = required[:REQUIRED_MAX] if isinstance(required, list) else ()
    return isinstance(value, dict) and all(name in value for name in names if isinstance(name, str))


def is_refusal(text: str) -> bool:
    """Whether a short answer opens by declining. English only: another language's refusal goes unnoticed."""
    return len(text) <= REFUSAL_CHARS and REFUSAL.match(text) is not None


def is_repeating(tail: str) -> bool:
    """Whether the end of an answer is a loop of the same words."""
    if len(tail) < REPEATED_CHARS:
        return False
    data = tail.encode(errors="replace")
    return len(zlib.compress(data, 1)) * REPEATED_SHRINKS < len(data) + 24 * REPEATED_SHRINKS


def compiles(tail: str) -> bool | None:
    """Whether the blocks of Python and JSON that stand whole in an answer's end can be parsed; None without any."""
    verdicts = [_parses(language.lower(), code) for language, code in _blocks(tail)]
    return all(verdicts) if verdicts else None


def _blocks(tail: str) -> Iterator[tuple[str, str]]:
    for number, match in enumerate(BLOCK.finditer(tail)):
        if number >= BLOCKS_MAX:
            return
        if not ELIDED.search(match[2]) and "..." not in match[2]:
            yield match[1], match[2]


def _parses(language: str, code: str) -> bool:
    try:
        if language == "json":
            orjson.loads(code)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(code)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # what both raise on any text
        return False
    return True
