"""The metrics of streams that are held back: how often and how long clients did not keep up, and what waits for them.

Told only when a connection stops taking bytes and when it takes them again, never per event.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from app.telemetry.instruments import Counter, Gauge


class StreamMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "tierway_backpressure_events_total", "Times a client did not keep up with its answer.", registry=registry
        )
        self._seconds = Counter(
            "tierway_backpressure_seconds_total",
            "Seconds for which answers waited for their client.",
            registry=registry,
        )
        self._bytes = Gauge(
            "tierway_stream_buffer_bytes",
            "Bytes that wait in this process for clients that do not keep up.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def blocked(self, size: int) -> None:
        self._events.inc()
        self._bytes.inc(size)

    def flows(self, size: int, seconds: float) -> None:
        self._seconds.inc(seconds)
        self._bytes.dec(size)

    def held(self, change: int) -> None:
        """Bytes of an upstream's answer that wait, or no longer do."""
        self._bytes.inc(change)
