"""What is refused because there is too much, and how many calls at a time each upstream gets."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry

from app.telemetry.instruments import Counter, Gauge
from app.telemetry.metrics import Children, Names

CAUSES: Final = ("in_flight", "event_loop_lag", "memory", "upstream")


class OverloadMetrics:
    """Called by those who refuse, and by the gates of the upstreams."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, about: str) -> Children[Gauge]:
            return Children(
                Gauge(f"tierway_{name}", about, ("upstream",), registry=registry, multiprocess_mode="livesum")
            )

        shed = Counter(
            "tierway_shed_total", "Requests refused because there was too much.", ("cause",), registry=registry
        )
        self._shed = {cause: shed.labels(cause) for cause in CAUSES}  # there at 0, so that the first is an increase
        self._limit = gauge("upstream_limit", "Calls at a time that an upstream gets now.")
        self._waiting = gauge("upstream_waiting", "Requests that wait for a place at an upstream.")
        self._upstream = Names(50)

    def shed(self, cause: str) -> None:
        self._shed[cause].inc()

    def gate(self, upstream: str, limit: int, waiting: int) -> None:
        name = self._upstream[upstream]
        self._limit[name,].set(limit)
        self._waiting[name,].set(waiting)
