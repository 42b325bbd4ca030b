"""A Card is all we know of one model. It is made by discovery and never changed: a new one replaces it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.core.money import Price


class Ability(StrEnum):
    """What a request may need and a model may have. The name of each is also what `abilities:` takes in the file."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    TOOLS = "tools"
    FORCED_TOOLS = "forced_tools"
    CUSTOM_TOOLS = "custom_tools"
    IMAGES = "images"
    IMAGE_URLS = "image_urls"
    AUDIO = "audio"
    AUDIO_OUTPUT = "audio_output"
    FILES = "files"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    LOGPROBS = "logprobs"
    MANY = "n"
    STOP = "stop"
    PREFILL = "prefill"
    REASONING = "reasoning"


PARAM_OF: Mapping[Ability, str] = {
    Ability.CHAT: "model",
    Ability.EMBEDDINGS: "model",
    Ability.TOOLS: "tools",
    Ability.FORCED_TOOLS: "tool_choice",
    Ability.CUSTOM_TOOLS: "tools",
    Ability.IMAGES: "messages",
    Ability.IMAGE_URLS: "messages",
    Ability.AUDIO: "messages",
    Ability.AUDIO_OUTPUT: "modalities",
    Ability.FILES: "messages",
    Ability.JSON_OBJECT: "response_format",
    Ability.JSON_SCHEMA: "response_format",
    Ability.LOGPROBS: "logprobs",
    Ability.MANY: "n",
    Ability.STOP: "stop",
    Ability.PREFILL: "messages",
    Ability.REASONING: "reasoning_effort",
}
"""The request field to name when a model lacks the ability."""


@dataclass(frozen=True, slots=True)
class Card:
    """One model at one upstream.

    `name` is what the upstream calls it, `id` is `upstream/name`. None means unknown, never zero or unlimited.
    `complexity` is the range of scores (0..1) it is meant for. `quirks` are facts about its wire that its codec reads.
    """

    id: str
    name: str
    upstream: str
    kind: str  # ollama | vllm | anthropic | openai | builtin
    local: bool
    abilities: frozenset[Ability]
    context_window: int | None = None
    max_output: int | None = None
    price: Price | None = None
    complexity: tuple[float, float] = (0.0, 1.0)
    quality: float | None = None
    parameters: int | None = None
    parent: str | None = None
    licence: str | None = None
    created: int = 0
    owned_by: str | None = None
    simulated: bool = False
    fallback: tuple[str, ...] = ()
    quirks: Mapping[str, Any] = field(default_factory=dict)

    def lacks(self, needs: frozenset[Ability]) -> frozenset[Ability]:
        """The abilities a request needs and this model does not have."""
        return needs - self.abilities
