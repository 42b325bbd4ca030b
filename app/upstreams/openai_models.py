"""What an OpenAI-like list of models tells about each: its Card, as far as the list goes.

Such lists hardly say what a model is able to do. It is assumed to be whatever the wire has words for, less what the
server denies or the name rules out, and is the configuration's to correct; what is not said stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from app.core.card import Ability, Card
from app.core.upstream import Upstream
from app.upstreams.sizes import complexity_of, parameters_from_name
from app.wire.objects import Listed

EMBEDS: Final = frozenset({Ability.EMBEDDINGS})
CHATS: Final = frozenset(Ability) - EMBEDS - {Ability.PREFILL}
"""What the chat wire has words for. An answer begun by the caller (prefill) is no part of it."""

EMBEDDING_WORDS: Final = frozenset({"embed", "embedding", "embeddings", "bge", "gte", "e5"})
OTHER_WORDS: Final = frozenset(
    {
        *("whisper", "tts", "transcribe", "realtime", "dall", "image", "imagen", "sora", "veo"),
        *("moderation", "rerank", "reranker", "aqa", "babbage", "davinci"),
    }
)
"""Words in the names of models that neither chat nor embed: such a model is listed, and never chosen."""
DENIABLE: Final[Mapping[str, frozenset[Ability]]] = {
    "completion_chat": CHATS,
    "function_calling": frozenset({Ability.TOOLS, Ability.FORCED_TOOLS, Ability.CUSTOM_TOOLS}),
    "vision": frozenset({Ability.IMAGES, Ability.IMAGE_URLS}),
    "reasoning": frozenset({Ability.REASONING}),
}
"""What a model lacks when its server says that it has not got this capability."""
_WORDS: Final = re.compile(r"[a-z0-9]+")


def card_of(model: Listed, upstream: Upstream, abilities: frozenset[Ability], akin: Iterable[Listed] = ()) -> Card:
    """The Card of a listed model. Where its own names do not state a size, those of models `akin` to it may."""
    names = [name for one in (model, *akin) for name in (one.id, one.root or "")]
    parameters = next((size for name in names if (size := parameters_from_name(name)) is not None), None)
    return Card(
        id=f"{upstream.name}/{model.id}",
        name=model.id,
        upstream=upstream.name,
        kind=upstream.kind,
        local=upstream.local,
        abilities=abilities,
        context_window=model.context_window,
        max_output=model.max_output,
        complexity=complexity_of(parameters),
        parameters=parameters,
        parent=f"{upstream.name}/{model.parent}" if model.parent is not None else None,
        created=model.created or 0,
        owned_by=model.owned_by,
    )


def abilities_of(model: Listed) -> frozenset[Ability]:
    """By its name a model chats, embeds, or does neither; of what chat takes, it lacks what its server denies."""
    words = _words(model.id)
    if words & EMBEDDING_WORDS:
        return EMBEDS
    if words & OTHER_WORDS:
        return frozenset()
    denied = (DENIABLE.get(name, frozenset()) for name, able in model.capabilities.items() if not able)
    return CHATS.difference(*denied)


def embeds_by_name(model: Listed) -> bool:
    """Whether its name says that a model is for embeddings."""
    return bool(_words(model.id) & EMBEDDING_WORDS)


def _words(name: str) -> frozenset[str]:
    return frozenset(_WORDS.findall(name.lower()))
