"""What an answer would have cost on the dearest model that could have given it: the measure of savings.

Capable is who has the abilities and the window; whether the caller's key, privacy or the operator's rules would have
let it go there does not matter. None is unknown: no capable model has a price.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final

from app.core.card import Ability, Card
from app.core.money import Price, Tokens, cost_nano

REMEMBERED_MAX: Final = 256

Needs = frozenset[Ability]


class Dearest:
    """`cards` gives those of the moment."""

    def __init__(self, cards: Callable[[], Sequence[Card]]) -> None:
        self._cards = cards
        self._of: Sequence[Card] = ()
        self._remembered: dict[Needs, tuple[tuple[int, Price], ...]] = {}

    def cost_nano(self, needs: Needs, tokens: Tokens) -> int | None:
        """For these tokens, cached as they were cached."""
        size = tokens.prompt + tokens.completion
        dearest = 0
        for window, price in self._capable(needs):
            if window >= size:
                dearest = max(dearest, cost_nano(tokens, price))
        return dearest or None

    def _capable(self, needs: Needs) -> tuple[tuple[int, Price], ...]:
        cards = self._cards()
        if cards is not self._of or len(self._remembered) > REMEMBERED_MAX:
            self._of, self._remembered = cards, {}
        found = self._remembered.get(needs)
        if found is None:
            found = self._remembered[needs] = _kept(cards, needs)
        return found


def _kept(cards: Sequence[Card], needs: Needs) -> tuple[tuple[int, Price], ...]:
    """Windows and prices of the capable, without those that another is dearer than in everything."""
    offers = {
        (sys.maxsize if card.context_window is None else card.context_window, card.price)
        for card in cards
        if card.price is not None and not card.lacks(needs)
    }
    return tuple(mine for mine in offers if not any(_outdone(mine, other) for other in offers if other != mine))


def _outdone(mine: tuple[int, Price], other: tuple[int, Price]) -> bool:
    """Whether the other takes whatever this takes, and is never cheaper. What has tiers stays."""
    (window, price), (other_window, dearer) = mine, other
    if price.above or window > other_window:
        return False
    tiers = (dearer, *(tier for _, tier in dearer.above))
    return all(a <= b for tier in tiers for a, b in zip(_flat(price), _flat(tier), strict=True))


def _flat(price: Price) -> tuple[int, ...]:
    return price.input, price.output, price.cache_read, price.cache_write, price.cache_write_1h
