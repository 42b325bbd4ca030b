"""All Cards of one moment: what a client's `model` means among them, and which is best or cheapest for what."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final, TypeVar

from app.core.card import Ability, Card
from app.core.errors import ModelNotFound
from app.routing.profiles import Profile, profiles

T = TypeVar("T")

STRATEGIES: Final = ("cost", "quality", "privacy", "adaptive")
AUTO: Final = "auto"
ALIAS_DEPTH: Final = 8
NAME_SHOWN: Final = 200
WILD: Final = frozenset("*?[")
REMEMBERED_MAX: Final = 512


@dataclass(frozen=True, slots=True)
class Named:
    """What a `model` stands for: one Card, or `auto` with the strategy that was named."""

    card: Card | None
    strategy: str | None = None


AUTOS: Final = {AUTO: Named(None), **{f"{AUTO}:{strategy}": Named(None, strategy) for strategy in STRATEGIES}}


class Registry:
    """An immutable snapshot. `cards` are in the order of the configuration; `aliases` are patterns and what they
    stand for, the first that matches counts."""

    def __init__(self, cards: Iterable[Card], aliases: Mapping[str, str] | None = None) -> None:
        self.cards: tuple[Card, ...] = tuple(cards)
        self._aliases = tuple((aliases or {}).items())
        self.profiles = profiles(self.cards)
        self.by_thrift = sorted(self.profiles, key=lambda each: each.thrift)
        self._remembered: dict[Hashable, Any] = {}
        self.local_ids = tuple(card.id for card in self.cards if card.local)
        self._by_id = {card.id: card for card in self.cards}
        self._profile_by_id = {each.card.id: each for each in self.profiles}
        self._by_name: dict[str, list[Card]] = {}
        for card in self.cards:
            self._by_name.setdefault(card.name, []).append(card)
        self._named = {
            **{name: Named(cards[0]) for name, cards in self._by_name.items() if len(cards) == 1},
            **AUTOS,
            **{card.id: Named(card) for card in self.cards},
        }

    def get(self, model_id: str) -> Card | None:
        """The Card with this full id."""
        return self._by_id.get(model_id)

    def profile(self, model_id: str | None) -> Profile | None:
        """The same as a Profile."""
        return None if model_id is None else self._profile_by_id.get(model_id)

    def lookup(self, model: str) -> Card | None:
        """The Card that a name in the configuration means; None while it is not there."""
        try:
            return self.find(model).card
        except ModelNotFound:
            return None

    def places(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Where the models are that these names in the configuration mean; what is not there is passed over."""

        def found() -> tuple[int, ...]:
            cards = [card for card in map(self.lookup, names) if card is not None]
            return tuple(dict.fromkeys(self.cards.index(card) for card in cards))

        return self.remember(("places", names), found)

    def able(self, ability: Ability, *, local: bool | None = None) -> tuple[Profile, ...]:
        """Those with this ability, in the order of the configuration; only local ones, or only others, if asked."""
        return tuple(
            each for each in self.profiles if ability in each.card.abilities and (local is None or each.local is local)
        )

    def best(self, ability: Ability, *, local: bool | None = None) -> Card | None:
        """The strongest of them."""
        able = self.able(ability, local=local)
        return max(able, key=lambda each: (each.strength, each.top)).card if able else None

    def cheapest(self, ability: Ability, *, local: bool | None = None) -> Card | None:
        """The one whose tokens cost least, in and out; local before others, unknown prices last."""
        able = self.able(ability, local=local)
        return min(able, key=_dearness).card if able else None

    def remember(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is the same for many requests while this snapshot lasts, made once. Bounded: callers choose keys."""
        known: T | None = self._remembered.get(key)
        if known is None:
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            known = self._remembered[key] = make()
        return known

    def find(self, model: str) -> Named:
        """A full id, `auto`, an unambiguous bare name or an alias. Raises `ModelNotFound` naming the closest."""
        asked = model
        for _ in range(ALIAS_DEPTH):
            if (named := self._named.get(model)) is not None:
                return named
            target = next((to for pattern, to in self._aliases if fnmatchcase(model, pattern)), None)
            if target is None:
                raise self._ambiguous(model) if model in self._by_name else self._not_found(asked)
            model = target
        raise ModelNotFound(f"The alias {asked[:NAME_SHOWN]!r} leads in a circle.", param="model")

    def _ambiguous(self, model: str) -> ModelNotFound:
        ids = ", ".join(card.id for card in self._by_name[model])
        return ModelNotFound(f"The model {model!r} is offered more than once; say which: {ids}.", param="model")

    def _not_found(self, model: str) -> ModelNotFound:
        model = model[:NAME_SHOWN]
        aliases = [alias for alias, _ in self._aliases if not WILD.intersection(alias)]
        known = [*AUTOS, *self._by_id, *self._by_name, *aliases]
        close = list(dict.fromkeys(get_close_matches(model, known, n=3, cutoff=0.5)))
        hint = f"Closest: {', '.join(close)}." if close else "GET /v1/models lists what there is."
        return ModelNotFound(f"The model {model!r} does not exist. {hint}", param="model")


def _dearness(each: Profile) -> tuple[bool, int, bool, float]:
    return each.price is None, each.input + each.output, not each.local, each.top
