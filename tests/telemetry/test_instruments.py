"""A dashboard computes its percentiles from these: a number in the wrong bucket is a wrong percentile."""

from __future__ import annotations

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from app.telemetry.instruments import Counter, Gauge, Histogram

BOUNDS = (0.1, 0.25, 1)
AMOUNTS = (0.0, 0.05, 0.1, 0.1000001, 0.25, 0.9, 1.0, 1.0001, 7, float("inf"), -1.0)


@pytest.mark.parametrize("labels", [(), ("model",)])
def test_they_show_what_those_of_the_library_show(labels: tuple[str, ...]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    for registry, counted, set_to, measured in (
        (ours, Counter, Gauge, Histogram),
        (theirs, prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram),
    ):
        counter = counted("seen_total", "Seen.", labels, registry=registry)
        histogram = measured("seconds", "Seconds.", labels, registry=registry, buckets=BOUNDS)
        values = ["m"] * len(labels)
        for amount in AMOUNTS:
            (histogram.labels(*values) if labels else histogram).observe(amount)
        one = counter.labels(*values) if labels else counter
        one.inc()
        one.inc(2.5)
        gauge = set_to("open", "Open.", labels, registry=registry)
        (gauge.labels(*values) if labels else gauge).set(3)
    assert shown(ours) == shown(theirs) and "seconds_bucket" in str(shown(ours))


def shown(registry: CollectorRegistry) -> list[bytes]:
    """All but when each was made."""
    return [line for line in generate_latest(registry).splitlines() if b"_created" not in line]
