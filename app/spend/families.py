"""What the makers of models add to a request, and how fast they answer: stated bounds per family of models, as data.

A bound is a statement about somebody else's server, with where it comes from; nothing here is measured. Where nothing
can be stated there is None, and who needs the number has to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from app.core.card import Card


@dataclass(frozen=True, slots=True)
class Family:
    """Tokens at most: of any request (`base`), around each message and each part of one (`message`), for having tools
    at all (`tools`) and around each (`tool`), for a schema of the answer (`schema`), for an image of any size.

    `window`: a longer prompt is refused, and not billed; None where we cannot say. `output`: the longest answer.
    `speed`: tokens of one choice per second.
    """

    base: int = 1_024  # a default system prompt that comes with a chat template
    message: int = 16
    tools: int = 2_048  # the same, of templates that explain tools
    tool: int = 64
    schema: int = 512
    image: int | None = None
    window: int | None = None
    output: int | None = None
    speed: int = 4_000  # hardware made for it does 3,000


# Claude's documentation: tool use adds a system prompt of 159 to 804 tokens, by model and tool choice; structured
# output adds one "explaining the format". An image is scaled to at most 1,568 tokens, from 4.7 on to 4,784; what stands
# around it measures less than 20.
_CLAUDE_NEW: Final = Family(base=256, tools=1_024, image=4_840, window=1_000_000, speed=1_000)
_CLAUDE_4_6: Final = replace(_CLAUDE_NEW, image=1_620)
_CLAUDE_OLD: Final = replace(_CLAUDE_4_6, window=200_000)
_CLAUDES: Final = (
    (re.compile(r"claude-(?:3|(?:opus|sonnet|haiku)-4(?:-[0-5])?(?:[-@]\d{8})?(?:-v\d.*)?$)"), _CLAUDE_OLD),
    (re.compile(r"claude-(?:opus|sonnet|haiku)-4-6"), _CLAUDE_4_6),
)

_OPENAI: Final = Family(base=256, tools=512, speed=2_000)
# OpenAI's guide to images. By tiles: base + 8 tiles, which is what 2048 x 768 pixels need. By patches: 1,536 of them,
# times the model's factor; since 5.4 up to 10,000, and 2.46 is the largest factor there is.
_NEWEST_IMAGE: Final = 24_600
_OPENAIS: Final[Mapping[str, Family]] = {
    "gpt-4o-mini": replace(_OPENAI, image=2_833 + 8 * 5_667, output=16_384),
    "gpt-4.1-mini": replace(_OPENAI, image=2_489, output=32_768),
    "gpt-4.1-nano": replace(_OPENAI, image=3_779, output=32_768),
    "gpt-4.1": replace(_OPENAI, image=1_536, output=32_768),
    "gpt-4o-2024-05-13": replace(_OPENAI, image=1_445, output=4_096),
    "gpt-4o": replace(_OPENAI, image=1_445, output=16_384),
    "chatgpt-4o": replace(_OPENAI, image=1_445, output=16_384),
    "gpt-4.5": replace(_OPENAI, image=1_445, output=16_384),
    "gpt-4": replace(_OPENAI, image=1_445, output=4_096),
    "gpt-3": replace(_OPENAI, output=4_096),
    "o4-mini": replace(_OPENAI, image=2_642, output=100_000),
    "o1-mini": replace(_OPENAI, image=1_275, output=65_536),
    "o1": replace(_OPENAI, image=1_275, output=100_000),
    "o3": replace(_OPENAI, image=1_275, output=100_000),
    "gpt-5-chat": replace(_OPENAI, image=_NEWEST_IMAGE, output=16_384),
    "gpt-5.3": replace(_OPENAI, image=_NEWEST_IMAGE, output=16_384),
    "gpt-5": replace(_OPENAI, image=_NEWEST_IMAGE, output=128_000),
    "gpt-6": replace(_OPENAI, image=_NEWEST_IMAGE, output=128_000),
}
"""By how names begin; of several the first in this order."""

_UNKNOWN: Final = Family()
_THINKS_ALOUD: Final = ("gpt-3", "gpt-4", "chatgpt-4o", "gpt-5-chat")
"""Of OpenAI's models, those that do not think before they answer."""


def family_of(card: Card) -> Family:
    """The bounds that hold for a model."""
    return _known(card.kind, card.name, card.context_window)


@lru_cache(maxsize=1_024)
def _known(kind: str, name: str, window: int | None) -> Family:
    if kind == "anthropic":
        known = next((family for names, family in _CLAUDES if names.search(name)), _CLAUDE_NEW)
        # A card's window may be one that a person set, and lower than the real one.
        return replace(known, window=max(window or 0, known.window or 0))
    stem = _stem(name) if kind == "openai" else ""
    return next((family for start, family in _OPENAIS.items() if stem.startswith(start)), _UNKNOWN)


def _stem(name: str) -> str:
    """The name of a model, without what resellers and fine-tuning put before it."""
    return name.rsplit("/", 1)[-1].removeprefix("ft:")


def thinking_of(card: Card) -> str:
    """How a model thinks that was not told not to: `shown` with all its tokens, `hidden` (or summarised), or `silent`:
    hidden, and its server sends nothing meanwhile, so that it does not notice when nobody listens any more."""
    return _thinking(card.kind, card.name)


@lru_cache(maxsize=1_024)
def _thinking(kind: str, name: str) -> str:
    if kind == "anthropic":
        return "hidden"
    return "shown" if kind != "openai" or _stem(name).startswith(_THINKS_ALOUD) else "silent"
