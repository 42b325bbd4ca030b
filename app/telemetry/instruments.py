"""Counters and histograms of `prometheus_client` that take a number without asking first whether they may.

Whoever holds one here holds one that has its labels, so what the library checks at each number is known. A histogram
finds its bucket by halves rather than one by one.
"""

from __future__ import annotations

from bisect import bisect_left

import prometheus_client as library


class Counter(library.Counter):
    """`amount` is never below 0."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        self._value.inc(amount)


class Histogram(library.Histogram):
    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        self._sum.inc(amount)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)
