"""Puts what a client sent behind what is kept of its conversation, without saying anything twice. Pure.

A client may send only its new turn, or all it knows. The latter is told by answers in it: whoever sends none adds to
the conversation. Where it knows another conversation than we do, the client's own words stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from app.sessions.canonical import digest

Json = Mapping[str, Any]
Call = tuple[str, Any]
"""The role of its result, and what that names it by."""

ASSISTANT: Final = "assistant"
INSTRUCTIONS: Final = frozenset({"system", "developer"})
TOOL: Final = "tool"
FUNCTION: Final = "function"
RESULTS: Final = frozenset({TOOL, FUNCTION})


class Joined(NamedTuple):
    """The first `base` of the kept messages stand before what was sent, of which the first `same` are kept already,
    right behind those."""

    base: int
    same: int


def split(messages: Sequence[Json]) -> tuple[list[Json], list[Json]]:
    """The instructions that messages begin with, and the conversation after them."""
    first = next((at for at, each in enumerate(messages) if each.get("role") not in INSTRUCTIONS), len(messages))
    return list(messages[:first]), list(messages[first:])


def joined(kept: Sequence[Json], sent: Sequence[Json]) -> Joined:
    """Where what was sent belongs. Neither has instructions at its head; what is kept ends with an answer."""
    if not kept or not _knows_answers(sent):
        return Joined(len(kept), 0)
    ours, theirs = [digest(each) for each in kept], [digest(each) for each in sent]
    if overlap := _overlap(ours, theirs):
        return Joined(len(kept) - overlap, overlap)
    if sent[0].get("role") == ASSISTANT:  # nothing begins so: it is the last answer, in the client's words
        return Joined(len(kept) - 1, 0)
    pairs = zip(ours, theirs, strict=False)
    return Joined(0, next((at for at, (own, other) in enumerate(pairs) if own != other), min(len(ours), len(theirs))))


def _knows_answers(sent: Sequence[Json]) -> bool:
    """Whether an answer stands before the client's last own word; one after it is to be continued."""
    roles = [each.get("role") for each in sent]
    while roles and roles[-1] == ASSISTANT:
        roles.pop()
    return ASSISTANT in roles or (not roles and bool(sent))


def _overlap(ours: Sequence[bytes], theirs: Sequence[bytes]) -> int:
    """How many of the first of theirs are the last of ours, at most; in linear time, as in Knuth, Morris and Pratt."""
    pattern = [*theirs, b"", *ours[-len(theirs) :]]
    lengths = [0] * len(pattern)
    for at in range(1, len(pattern)):
        length = lengths[at - 1]
        while length and pattern[at] != pattern[length]:
            length = lengths[length - 1]
        lengths[at] = length + (pattern[at] == pattern[length])
    return lengths[-1]


def paired(messages: Sequence[Json], own: int) -> list[Json | None]:
    """The messages with their tool calls and results in pairs: of the first `own`, which are ours, calls that nobody
    answered are left out, and results that nobody called for; None where nothing is left of one."""
    found: list[Json | None] = list(messages)
    at = 0
    while at < len(messages):
        following = at + 1
        while following < len(messages) and messages[following].get("role") in RESULTS:
            following += 1
        if at < own:
            calls = _calls(messages[at])
            answered = {_answers(each) for each in messages[at + 1 : following]}
            if calls - answered:
                found[at] = _without(messages[at], answered)
            for index in range(at + 1, min(following, own)):
                if _answers(messages[index]) not in calls:
                    found[index] = None
            if messages[at].get("role") in RESULTS:
                found[at] = None
        at = following
    return found


def _calls(message: Json) -> set[Call]:
    calls = {(TOOL, call.get("id")) for call in message.get("tool_calls") or ()}
    return calls | {(FUNCTION, call.get("name")) for call in [message.get("function_call")] if call}


def _answers(result: Json) -> Call:
    """The call that a result is of: of the old kind, which knows no ids, one by its name."""
    return (FUNCTION, result.get("name")) if result.get("role") == FUNCTION else (TOOL, result.get("tool_call_id"))


def _without(message: Json, answered: set[Call]) -> Json | None:
    """The message with those of its calls that were answered; None where nothing is left of it."""
    rest = {name: value for name, value in message.items() if name not in ("tool_calls", "function_call")}
    if calls := [call for call in message.get("tool_calls") or () if (TOOL, call.get("id")) in answered]:
        rest["tool_calls"] = calls
    if (old := message.get("function_call")) and (FUNCTION, old.get("name")) in answered:
        rest["function_call"] = old
    return rest if rest.keys() & {"tool_calls", "function_call"} or rest.get("content") or rest.get("refusal") else None
