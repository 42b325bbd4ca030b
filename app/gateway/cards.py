"""Makes the Cards that count from what upstreams say, what the operator wrote, and what the price library knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from app.config.schema import Model
from app.core.card import Ability, Card
from app.core.money import Price

PriceOf = Callable[[Card, Model | None], Price | None]

OF_THE_MODEL: Final = frozenset(
    {Ability.EMBEDDINGS, Ability.TOOLS, Ability.IMAGES, Ability.AUDIO, Ability.FILES, Ability.REASONING}
)
"""Abilities that models differ in; the others belong to the wire, and a note on a model does not take them away."""
WITH_TOOLS: Final = frozenset({Ability.FORCED_TOOLS, Ability.CUSTOM_TOOLS})


def registered(
    cards: Sequence[Card], notes: Mapping[str, Model], price_of: PriceOf, *, only_listed: bool
) -> list[Card]:
    """All Cards with the operator's notes and prices. With `only_listed`, models without a note are left out. Models
    with a note come first, in the order of the notes: the file's order is the operator's preference."""
    order = {model_id: place for place, model_id in enumerate(notes)}
    kept = [card for card in cards if card.id in notes or not only_listed]
    kept.sort(key=lambda card: order.get(card.id, len(order)))
    return [_with_price(annotated(card, notes.get(card.id)), notes.get(card.id), price_of) for card in kept]


def annotated(card: Card, note: Model | None) -> Card:
    """The Card with what the operator's note says instead of what the upstream said."""
    if note is None:
        return card
    return replace(
        card,
        complexity=note.complexity or card.complexity,
        context_window=note.context_window or card.context_window,
        max_output=note.max_output or card.max_output,
        fallback=tuple(note.fallback) or card.fallback,
        abilities=_abilities(card, note),
    )


def _abilities(card: Card, note: Model) -> frozenset[Ability]:
    if note.abilities is None:
        return card.abilities
    said = frozenset(note.abilities)
    gone = OF_THE_MODEL - said
    if Ability.TOOLS in gone:
        gone |= WITH_TOOLS
    if Ability.IMAGES in gone:
        gone |= {Ability.IMAGE_URLS}
    if Ability.EMBEDDINGS in said and Ability.CHAT not in said:  # a model embeds or it talks
        gone |= {Ability.CHAT}
    return (card.abilities | said) - gone


def _with_price(card: Card, note: Model | None, price_of: PriceOf) -> Card:
    return replace(card, price=price_of(card, note))
