"""How late a gateway's event loop was during a run, by its own metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

NAME: Final = "tierway_event_loop_lag_seconds"

Buckets = dict[float, float]
"""How often it was at most so many seconds late."""


def read(metrics: str) -> Buckets:
    buckets: Buckets = {}
    for family in text_string_to_metric_families(metrics):
        if family.name == NAME:
            for sample in family.samples:
                if sample.name == f"{NAME}_bucket":
                    bound = float(sample.labels["le"])
                    buckets[bound] = buckets.get(bound, 0.0) + sample.value
    return buckets


def quantile(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float | None:
    """The bound that so large a share of what came between the two stays within; None where nothing came."""
    counts = {bound: count - before.get(bound, 0.0) for bound, count in sorted(after.items())}
    total = max(counts.values(), default=0.0)
    if total <= 0:
        return None
    return next(bound for bound, count in counts.items() if count >= share * total)
