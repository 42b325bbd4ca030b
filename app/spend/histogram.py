"""Seconds as counts in buckets, each a fifth wider than the one before, and percentiles out of such counts. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

FIRST_SECONDS: Final = 0.005
GROWTH: Final = 1.2
LAST: Final = 72  # 0.005 * 1.2 ** 72 is 42 minutes
_BOUNDS: Final = tuple(FIRST_SECONDS * GROWTH**number for number in range(LAST))


def bucket(seconds: float) -> int:
    """The bucket these seconds fall into."""
    return bisect_left(_BOUNDS, seconds)


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """The seconds that this share of what was counted stayed below, within a tenth; None where nothing was counted."""
    total = sum(counts.values())
    if total <= 0:
        return None
    below, wanted = 0, share * total
    for number in sorted(counts):
        if below + counts[number] >= wanted:
            inside = (wanted - below) / counts[number]
            return float(FIRST_SECONDS * GROWTH ** (number - 1 + inside))
        below += counts[number]
    return float(FIRST_SECONDS * GROWTH ** max(counts))
