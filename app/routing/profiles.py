"""A Card as the plan reads it: the numbers that ranking needs, worked out once per Card and not once per request.

What a model is expected to do, as long as nobody has watched it, follows from what it is meant for: within its range of
complexity it succeeds, the stronger the more often; beyond it, ever less.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.core.card import Card
from app.core.money import FREE, Price
from app.core.verdict import tier_of

BASE: Final = 0.86
OF_STRENGTH: Final = 0.12
BEYOND: Final = 2.0  # success lost per score beyond the range
FLOOR: Final = 0.05
SUCCESS_DIGITS: Final = 4
"""As many as a decision remembers: what is ranked anew later must not differ by less than anybody wrote down."""
ENDLESS: Final = sys.maxsize


@dataclass(frozen=True, slots=True)
class Profile:
    """`place` is the Card's in the configuration; `top` the highest score it is meant for; `tier` the size class that
    the middle of its range is in; `prior` its success there before anything was observed. `flat` says that `input` and
    `output`, in pico-dollars per token, are the whole price. `thrift` is its rank among equals: local first, then the
    smaller, because the machine's time has a price as well."""

    card: Card
    place: int
    local: bool
    window: int
    top: float
    tier: str
    strength: float
    prior: float
    price: Price | None
    flat: bool
    input: int
    output: int
    thrift: int


def profiles(cards: Sequence[Card]) -> tuple[Profile, ...]:
    """One for each, in their order."""
    order = sorted(range(len(cards)), key=lambda place: (not cards[place].local, cards[place].complexity[1]))
    ranks = {place: rank for rank, place in enumerate(order)}
    return tuple(_profile(card, place, ranks[place]) for place, card in enumerate(cards))


def _profile(card: Card, place: int, thrift: int) -> Profile:
    low, top = card.complexity
    middle = (low + top) / 2
    strength = middle if card.quality is None else card.quality
    price = price_of(card)
    return Profile(
        card=card,
        place=place,
        local=card.local,
        window=ENDLESS if card.context_window is None else card.context_window,
        top=top,
        tier=tier_of(middle),
        strength=strength,
        prior=round(BASE + OF_STRENGTH * strength, SUCCESS_DIGITS),
        price=price,
        flat=price is not None and not price.above,
        input=0 if price is None else price.input,
        output=0 if price is None else price.output,
        thrift=thrift,
    )


def price_of(card: Card) -> Price | None:
    """What it costs: a local model nothing, unless it is priced; None is unknown."""
    return FREE if card.price is None and card.local else card.price


def prior_success(profile: Profile, score: float) -> float:
    """How likely its answer to a request of this score is good, going by its range alone."""
    if score <= profile.top:
        return profile.prior
    return max(FLOOR, round(profile.prior - BEYOND * (score - profile.top), SUCCESS_DIGITS))
