"""How busy each upstream is, and how soon its models begin to answer: what this gateway itself sees of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from app.core.card import Card
from app.core.record import Record

CEILING: Final = 32  # of calls at a time, where none is configured
NEWEST: Final = 0.2  # how much the newest first token counts


def _nothing_waits(upstream: str) -> int:
    return 0


class Traffic:
    """`ceilings` are the calls at a time that each upstream should get at most; `waiting` tells how many requests wait
    over there, for upstreams that say so."""

    def __init__(
        self,
        ceilings: Mapping[str, int] = MappingProxyType({}),
        waiting: Callable[[str], int] = _nothing_waits,
    ) -> None:
        self._ceilings = ceilings
        self._waiting = waiting
        self._in_flight: Counter[str] = Counter()
        self._first_token: dict[str, float] = {}

    def configure(self, ceilings: Mapping[str, int]) -> None:
        """From now on these are the ceilings."""
        self._ceilings = ceilings

    def inherit(self, before: Traffic) -> None:
        """What is in flight, counted with whoever counted it so far, and how soon models begin."""
        self._in_flight, self._first_token = before._in_flight, before._first_token

    def started(self, upstream: str) -> None:
        self._in_flight[upstream] += 1

    def ended(self, upstream: str) -> None:
        self._in_flight[upstream] = max(0, self._in_flight[upstream] - 1)

    def observe(self, record: Record) -> None:
        """A finished request. Only a stream shows when its first token came, and only one that went well at once shows
        how soon this model was."""
        first = record.first_token_seconds
        if first is None or record.model is None or not record.stream or len(record.attempts) != 1:
            return
        before = self._first_token.get(record.model, first)
        self._first_token[record.model] = before + NEWEST * (first - before)

    def in_flight(self, upstream: str) -> int:
        return self._in_flight[upstream]

    def ceiling(self, upstream: str) -> int:
        return self._ceilings.get(upstream, CEILING)

    def use(self, upstream: str) -> float:
        """The share of its ceiling in use; above 1 where requests wait. A server that lets requests wait has all it
        can take, whoever sent them."""
        ceiling, waiting = self.ceiling(upstream), self._waiting(upstream)
        used = self._in_flight[upstream] / ceiling
        return max(used, 1 + waiting / ceiling) if waiting > 0 else used

    def load(self, card: Card) -> float:
        """That of the model's upstream."""
        return self.use(card.upstream)

    def first_token(self, card: Card) -> float | None:
        """The usual seconds to this model's first token; None while none was seen."""
        return self._first_token.get(card.id)
