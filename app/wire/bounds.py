"""How many pieces a client's messages may come in, in whatever dialect, counted before any object is made of them: a
body within its bounds of bytes still holds millions of empty parts.

Only counts; what a piece must look like is judged by each dialect's own reader.
"""

from __future__ import annotations

from typing import Any, Final

from app.core.errors import InvalidValue

MAX_PARTS: Final = 4_096
MAX_CALLS: Final = 1_024
_LISTS: Final = ("content", "images", "thinking_blocks")
_CALLS: Final = ("tool_calls", "content")
_NESTING: Final = 3  # the result of a tool holds a document that holds texts


def check_pieces(messages: list[Any], system: Any = None) -> None:
    """Raises `InvalidValue` where the messages have too many parts in all, or one of them too many tool calls."""
    parts = 0 if system is None else _within(_parts(system), "system")
    for index, message in enumerate(messages):
        if type(message) is not dict:
            continue
        for name in _LISTS:
            if name in message and type(message[name]) is list:
                parts = _within(parts + _parts(message[name]), f"messages[{index}].{name}")
        for name in _CALLS:
            if name in message and type(message[name]) is list:
                _check_calls(message[name], name, f"messages[{index}].{name}")


def _within(parts: int, path: str) -> int:
    if parts > MAX_PARTS:
        raise InvalidValue(f"with '{path}' there are more than {MAX_PARTS} content parts", param=path)
    return parts


def _parts(content: Any, nesting: int = _NESTING) -> int:
    """The parts in a content and within them; no more are looked into than may be there."""
    if type(content) is not list:
        return 0
    total = len(content)
    if nesting > 1 and total <= MAX_PARTS:
        for part in content:
            if type(part) is dict:
                source = part.get("source")
                total += _parts(part.get("content"), nesting - 1)
                total += _parts(source.get("content"), nesting - 1) if type(source) is dict else 0
    return total


def _check_calls(pieces: list[Any], name: str, path: str) -> None:
    if len(pieces) > MAX_CALLS:
        calls = len(pieces) if name == "tool_calls" else sum(map(_is_call, pieces))
        if calls > MAX_CALLS:
            raise InvalidValue(f"'{path}' has {calls} tool calls; at most {MAX_CALLS} are allowed", param=path)


def _is_call(part: Any) -> bool:
    return type(part) is dict and part.get("type") == "tool_use"
