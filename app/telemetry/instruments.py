"""Counters, gauges and histograms of `prometheus_client` that take a number without asking first whether they may.

Whoever holds one here holds one that has its labels, so what the library checks at each number is known. A histogram
finds its bucket by halves rather than one by one.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import prometheus_client as library
from prometheus_client import values

SHARED: Final = values.ValueClass is not values.MutexValue
"""Whether numbers are written to files that several workers share."""


class Counter(library.Counter):
    """`amount` is never below 0."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        self._value.inc(amount)


class Gauge(library.Gauge):
    def set(self, value: float) -> None:
        if SHARED:
            super().set(value)
        else:
            self._value._value = value


class Histogram(library.Histogram):
    """Measured by one thread alone, so that adding takes no lock: that of the event loop."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        total, bucket = self._sum, self._buckets[bisect_left(self._upper_bounds, amount)]
        if SHARED:
            total.inc(amount)
            bucket.inc(1)
        else:
            total._value += amount
            bucket._value += 1
