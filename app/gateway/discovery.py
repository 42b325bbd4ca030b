"""Finds out which models there are, and keeps finding out: every upstream is asked at start and then regularly.

An upstream that does not answer keeps the Cards it had, so that a restart over there does not empty the list; the
breakers know that it is away. Every change is published as a new Registry; nothing is changed in place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.config.schema import Model
from app.core.card import Card
from app.core.errors import GatewayError
from app.core.upstream import Upstream
from app.gateway.cards import PriceOf, registered
from app.routing.registry import Registry

LIST_SECONDS: Final = 5.0
EVERY_SECONDS: Final = 30.0
EVERY_SECONDS_WHILE_AWAY: Final = 3.0
BUILTIN: Final = "builtin"


@dataclass(frozen=True, slots=True)
class Found:
    """What one upstream said last. `error` is in words for people; None when it answered."""

    upstream: str
    kind: str
    local: bool
    models: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Notes:
    """What the operator wrote: about models, which of them count, and other names. `simulated`: nothing real answers,
    and every Card must say so."""

    models: Mapping[str, Model]
    only_listed: bool
    aliases: Mapping[str, str]
    simulated: bool = False


class Discovery:
    """`publish` is given each new Registry; `observe` is told when an upstream appears or goes away."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        notes: Notes,
        price_of: PriceOf,
        publish: Callable[[Registry], None],
        observe: Callable[[Found], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience: float = LIST_SECONDS,
    ) -> None:
        self._upstreams = tuple(upstreams)
        self._notes = notes
        self._price_of = price_of
        self._publish = publish
        self._observe = observe
        self._sleep = sleep
        self._patience = patience
        self._cards: dict[str, Sequence[Card]] = {}
        self._found: dict[str, Found] = {}

    def inherit(self, before: Discovery, upstreams: Container[str]) -> None:
        """What the one before knew of these upstreams counts for those that do not answer now. To be called first."""
        self._cards |= {name: cards for name, cards in before._cards.items() if name in upstreams}

    @property
    def found(self) -> tuple[Found, ...]:
        """What every upstream said last, in the order of the configuration."""
        return tuple(self._found[up.name] for up in self._upstreams if up.name in self._found)

    async def refresh(self) -> None:
        """Asks every upstream at once, and publishes what there is."""
        before = dict(self._cards) if self._found else None
        await asyncio.gather(*(self._ask(upstream) for upstream in self._upstreams))
        if self._cards != before:
            cards = [card for up in self._upstreams for card in self._cards.get(up.name, ())]
            notes = self._notes
            cards = registered(cards, notes.models, self._price_of, only_listed=notes.only_listed)
            if notes.simulated:
                cards = [replace(card, simulated=card.kind != BUILTIN) for card in cards]
            self._publish(Registry(cards, notes.aliases))

    async def run(self) -> None:
        """Refreshes for ever; more often while an upstream is away."""
        while True:
            away = any(found.error is not None for found in self._found.values())
            await self._sleep(EVERY_SECONDS_WHILE_AWAY if away else EVERY_SECONDS)
            await self.refresh()

    async def _ask(self, upstream: Upstream) -> None:
        error: str | None = None
        try:
            async with asyncio.timeout(self._patience):
                self._cards[upstream.name] = tuple(await upstream.cards())
        except GatewayError as fault:
            error = fault.message
        except TimeoutError:
            error = f"It did not list its models within {self._patience:.0f} s."
        except Exception as ours:  # noqa: BLE001 - a fault of one adapter must not end discovery of all the others
            error = f"The gateway failed on its list of models: {type(ours).__name__}."
        models = len(self._cards.get(upstream.name, ()))
        found = Found(upstream.name, upstream.kind, upstream.local, models, error)
        known = self._found.get(upstream.name)
        self._found[upstream.name] = found
        if known is None or (known.error is None) != (error is None):
            self._observe(found)
