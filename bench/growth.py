"""Whether what was sampled over a long run keeps growing. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

WARM_UP: Final = 1 / 3
"""The first part of a run fills pools and caches, and says nothing."""
LEAST_SAMPLES: Final = 9
SHARE: Final = 0.05
STEADY: Final = 0.25
"""Of all that it grew by, the least that it grew by in each step."""


class Growth(NamedTuple):
    """Medians of three parts, one after the other."""

    first: float
    second: float
    third: float

    def goes_on(self, slack: float) -> bool:
        """It grew from each part to the next, by a like amount (what fills up grows less and less), and in all by more
        than noise: `slack`, and a share of what it was."""
        grown = self.third - self.first
        steady = min(self.second - self.first, self.third - self.second) > STEADY * grown
        return steady and grown > max(slack, SHARE * self.first)


def growth(values: Sequence[float]) -> Growth | None:
    """None where there are too few to tell."""
    settled = values[int(len(values) * WARM_UP) :]
    if len(settled) < LEAST_SAMPLES:
        return None
    size = len(settled) // 3
    return Growth(*(statistics.median(settled[at * size : (at + 1) * size]) for at in range(3)))


def growing(samples: Sequence[Mapping[str, float]], slacks: Mapping[str, float]) -> list[str]:
    """What keeps growing of all that has a slack, in words."""
    found = []
    for name, slack in slacks.items():
        seen = growth([sample[name] for sample in samples if name in sample])
        if seen is not None and seen.goes_on(slack):
            found.append(f"{name} keeps growing: {seen.first:,.1f}, {seen.second:,.1f}, {seen.third:,.1f}")
    return found
