"""The gates of all upstreams, made from their ceilings and changed with them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Final, NamedTuple

from app.core.clock import Clock
from app.upstreams.gate import Gate
from app.upstreams.limit import Limit

FAR: Final = 1_000_000
"""More calls than anybody has."""


class Ceiling(NamedTuple):
    """`said`: an operator said so, and it is never passed. Else it is only what such a server usually takes: the limit
    begins there, and goes beyond it as long as the server shows that it can do more."""

    calls: int
    said: bool = False

    @property
    def most(self) -> int:
        return self.calls if self.said else FAR


def _nobody(name: str, limit: int, waiting: int) -> None: ...


class Gates(dict[str, Gate]):
    """By the upstream's name; one without a ceiling has no gate. Ceilings are those of this process: `share` of them
    is its own, where several processes serve together."""

    def __init__(self, clock: Clock, told: Callable[[str, int, int], None] = _nobody, share: float = 1.0) -> None:
        super().__init__()
        self._clock = clock
        self._told = told
        self._share = share

    def inherit(self, before: Gates, upstreams: Container[str]) -> None:
        """The gates of these upstreams, shared with whoever has calls behind them: a ceiling bounds all calls there
        are, and what was learnt stays. To be called first."""
        self |= {name: gate for name, gate in before.items() if name in upstreams}

    def configure(self, ceilings: Mapping[str, Ceiling]) -> None:
        """From now on these count. Who has a seat keeps it."""
        for name, ceiling in ceilings.items():
            start, most = (max(1, int(calls * self._share)) for calls in (ceiling.calls, ceiling.most))
            if name in self:
                self[name].configure(start, most)
            else:
                self[name] = Gate(name, Limit(start, most), self._clock, self._told)
