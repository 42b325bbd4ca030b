"""How many calls at a time an upstream can take, found out as TCP finds its window. Pure arithmetic, without a clock.

It falls when the upstream says that it has too much (429, 503, a clock that ran out) or when first tokens come much
later than usual while our calls are many, and rises again as long as they come in time. One upstream's slow model says
nothing about its quick one, so each model has its own usual time.
"""

from __future__ import annotations

import math
from typing import Final

REFUSED: Final = 0.7
"""What is left of the limit when the upstream says no."""
SLOW: Final = 0.9
"""What is left of it when first tokens are late."""
ROUND_SECONDS: Final = 1.0
"""It falls at most once in this time: calls that were under way together have the same news."""
FORGET_SECONDS: Final = 60.0
"""So long after its last fall it begins anew."""
LATE_FACTOR: Final = 2.0
LATE_SECONDS: Final = 1.0
"""First tokens are late beyond this many times the usual, and this much more: a few tenths are a longer prompt."""
NEWEST: Final = 0.2
"""How much the newest first token counts among the recent ones, and among the usual ones when it is sooner."""
CREEP: Final = 0.005
CREEP_AT_EASE: Final = 0.05
"""How much a later one counts among the usual: more while our calls are few, because then they are not the cause."""
KNOWN: Final = 5
"""First tokens of a model before it has anything usual."""


class _Pace:
    """The first tokens of one model, in seconds."""

    __slots__ = ("count", "recent", "usual")

    def __init__(self, first: float) -> None:
        self.recent = self.usual = first
        self.count = 0

    def add(self, seconds: float, at_ease: bool) -> bool:
        """Whether they are late by now."""
        self.count += 1
        self.recent += NEWEST * (seconds - self.recent)
        weight = NEWEST if seconds < self.usual else CREEP_AT_EASE if at_ease else CREEP
        self.usual += weight * (seconds - self.usual)
        return self.count > KNOWN and self.recent > LATE_FACTOR * self.usual + LATE_SECONDS


class Limit:
    """Begins at `start` and never passes `most`. Until its first fall it grows with each call that goes well, so that a
    start that was only guessed costs no time; after that by one for each round of them. Only a limit that is in use
    grows: what nobody asks for, nobody knows."""

    __slots__ = ("_fell_at", "_paces", "_start", "_value", "calls", "most")

    def __init__(self, start: int, most: int) -> None:
        self._paces: dict[str, _Pace] = {}
        self._begin(start, most)

    def _begin(self, start: int, most: int) -> None:
        self.most = most
        self.calls = self._start = min(start, most)
        self._value = float(self.calls)
        self._fell_at = -math.inf

    def configure(self, start: int, most: int) -> bool:
        """Begins anew between other bounds. Whether they are others."""
        changed = (start, most) != (self._start, self.most)
        if changed:
            self._begin(start, most)
        return changed

    @property
    def grows(self) -> bool:
        """Whether more may soon be had than is had now."""
        return self.calls < self.most and self._fell_at == -math.inf

    def first_token(self, model: str, seconds: float, in_flight: int, now: float) -> None:
        """The first token of a call that began so many seconds ago, while this many calls were in flight."""
        at_ease = in_flight * 2 < self._value
        pace = self._paces.get(model)
        if pace is None:
            pace = self._paces[model] = _Pace(seconds)
        if pace.add(seconds, at_ease) and not at_ease:
            self._fall(SLOW, now)
        else:
            self.well(in_flight, now)

    def well(self, in_flight: int, now: float) -> None:
        """A call went well, or begins to."""
        if self.calls >= self.most:
            return
        if now - self._fell_at > FORGET_SECONDS and self._fell_at != -math.inf:
            self._fell_at = -math.inf
            self._set(max(self._value, self._start))
        elif in_flight * 2 >= self._value:
            self._set(self._value + (1 if self._fell_at == -math.inf else 1 / self._value))

    def refused(self, now: float) -> None:
        """The upstream had too much, by its own word or by its silence."""
        self._fall(REFUSED, now)

    def _fall(self, factor: float, now: float) -> None:
        if now - self._fell_at >= ROUND_SECONDS:
            self._fell_at = now
            self._set(self._value * factor)

    def _set(self, value: float) -> None:
        self._value = min(max(value, 1.0), float(self.most))
        self.calls = int(self._value)
