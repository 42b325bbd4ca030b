"""Counters, gauges and histograms of `prometheus_client` that take a number without asking first whether they may.

Whoever holds one here holds one that has its labels, so what the library checks at each number is known. A histogram
finds its bucket by halves rather than one by one. Where a process keeps its numbers to itself nothing is locked: the
interpreter gives no other thread a turn in the middle of an addition.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import prometheus_client as library
from prometheus_client import values

SHARED: Final = values.ValueClass is not values.MutexValue
"""Whether workers share their numbers through files."""


class Counter(library.Counter):
    """`amount` is never below 0."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        if SHARED:
            self._value.inc(amount)
        else:
            self._value._value += amount


class Gauge(library.Gauge):
    def set(self, value: float) -> None:
        if SHARED:
            super().set(value)
        else:
            self._value._value = float(value)


class Histogram(library.Histogram):
    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        bucket = self._buckets[bisect_left(self._upper_bounds, amount)]
        if SHARED:
            self._sum.inc(amount)
            bucket.inc(1)
        else:
            self._sum._value += amount
            bucket._value += 1
