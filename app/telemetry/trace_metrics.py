"""What became of the traces of requests, so that one who misses a trace sees why."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry

from app.telemetry.instruments import Counter

OUTCOMES: Final = ("sent", "failed", "dropped")


class TraceMetrics:
    """Called by whoever sends traces, in its thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        about = "Traces of requests: sent to the collector, failed there, or dropped because it was too slow."
        counter = Counter("tierway_traces_total", about, ("outcome",), registry=registry)
        self._traces = {outcome: counter.labels(outcome) for outcome in OUTCOMES}

    def told(self, outcome: str, count: int) -> None:
        self._traces[outcome].inc(count)
