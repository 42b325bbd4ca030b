"""How much of an upstream's time each attempt took, for the imputed price of local answers.

A machine costs its hour however many it serves, so those that run there at the same moment divide that moment among
them: one alone takes all of it, of eight each takes an eighth. What all took adds up to the time in which the machine
was in use, as far as this gateway saw.
"""

from __future__ import annotations

from app.core.clock import Clock


class _Shared:
    """`each` is how much one that was there all along would have got."""

    __slots__ = ("at", "each", "running")

    def __init__(self) -> None:
        self.running = 0
        self.each = 0.0
        self.at = 0.0

    def moved(self, now: float) -> None:
        if self.running:
            self.each += (now - self.at) / self.running
        self.at = now


class Machines:
    """One for a gateway. Every `started` has its `ended`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shared: dict[str, _Shared] = {}

    def started(self, upstream: str) -> float:
        """An attempt begins; the mark is to be given back at its end."""
        shared = self._shared.get(upstream)
        if shared is None:
            shared = self._shared[upstream] = _Shared()
        shared.moved(self._clock.monotonic())
        shared.running += 1
        return shared.each

    def ended(self, upstream: str, mark: float) -> float:
        """The seconds of the upstream's time that this attempt took."""
        shared = self._shared[upstream]
        shared.moved(self._clock.monotonic())
        took = shared.each - mark
        shared.running -= 1
        if not shared.running:
            shared.each = 0.0
        return took
