"""Shortens a conversation to what fits: the oldest goes first, and what belongs together stays together. Pure.

What stays in any case: instructions, the last thing a person said, the last exchange, and whatever the caller says is
its own. Whole turns go before single exchanges of the running one. It is shortened to three quarters of the window, so
that the beginning stays the same for some turns, and with it the upstream's prefix cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.core.messages import MediaPart, Message, Part, RefusalPart, TextPart, ThinkingPart, ToolResultPart, ToolUsePart
from app.core.tokens import TOKENS_PER_IMAGE, bytes_of, estimate

SHARE: Final = 0.75
TOKENS_PER_MESSAGE: Final = 4  # what a template puts around one
INSTRUCTIONS: Final = frozenset({"system", "developer"})
RESULTS: Final = frozenset({"tool", "function"})


def fit(
    messages: Sequence[Message], window_tokens: int, reserve: int = 0, own: int | None = None
) -> tuple[Message, ...]:
    """The messages that stay, in their order; all of them where they fit. `reserve` tokens are for the answer and what
    else the model reads; those from `own` on never go."""
    sizes = [tokens_of(message) for message in messages]
    if sum(sizes) + reserve <= window_tokens:
        return tuple(messages)
    stays = staying([message.role for message in messages], sizes, room_of(window_tokens, reserve), own)
    return tuple(messages[at] for at in stays)


def room_of(window_tokens: int, reserve: int) -> int:
    """Tokens for messages in a window that they outgrew."""
    return max(0, min(int(window_tokens * SHARE), window_tokens - reserve))


def staying(roles: Sequence[str], sizes: Sequence[int], room: int, own: int | None = None) -> list[int]:
    """Which messages stay so that their sizes come to `room`, or as near as may be."""
    own = len(roles) if own is None else own
    groups = _groups(roles)
    last_word = max((at for at, group in enumerate(groups) if roles[group[0]] == "user"), default=0)
    fixed = [
        roles[group[0]] in INSTRUCTIONS or at in (last_word, len(groups) - 1) or group[-1] >= own
        for at, group in enumerate(groups)
    ]
    left = sum(sizes) - room
    gone: set[int] = set()
    turn_goes = False
    for at, group in enumerate(groups):
        if fixed[at]:
            continue
        begins = roles[group[0]] == "user"
        # A turn goes whole: without the words it began with, its exchanges answer nothing.
        goes = left > 0 or (turn_goes and not begins and at < last_word)
        turn_goes = goes if begins else turn_goes
        if goes:
            gone.add(at)
            left -= sum(sizes[index] for index in group)
    return [index for at, group in enumerate(groups) if at not in gone for index in group]


def _groups(roles: Sequence[str]) -> list[list[int]]:
    """Messages that stay or go together: the calls of tools with their results."""
    groups: list[list[int]] = []
    for index, role in enumerate(roles):
        if role in RESULTS and groups:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def tokens_of(message: Message) -> int:
    """About how many tokens one message is."""
    size = sum(_size(part) for part in message.parts)
    return TOKENS_PER_MESSAGE + estimate(size) + TOKENS_PER_IMAGE * sum(map(_media, message.parts))


def _size(part: Part) -> int:
    match part:
        case TextPart() | ThinkingPart() | RefusalPart():
            return bytes_of(part.text)
        case ToolUsePart():
            return len(part.name) + bytes_of(part.arguments)
        case ToolResultPart():
            return sum(_size(inner) for inner in part.parts)
        case MediaPart():
            return 0


def _media(part: Part) -> int:
    if isinstance(part, ToolResultPart):
        return sum(map(_media, part.parts))
    return isinstance(part, MediaPart)
