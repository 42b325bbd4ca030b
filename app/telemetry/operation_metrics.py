"""The metrics that alerts need beyond the contract's: whose fault errors were, and how what we rely on stands.

`tierway_requests_total` knows only the status that was sent, which is 200 for a stream that broke after it began; here
an error counts however late it came. Whose fault it was is a matter of its code, so that a dashboard can tell a
caller's mistake from an upstream's and from ours.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry

from app.core.record import Record
from app.telemetry.instruments import Counter, Gauge
from app.telemetry.metrics import Children, Names

GATEWAY, UPSTREAM, CAPACITY, CALLER = "gateway", "upstream", "capacity", "caller"
BLAMES: Final = {
    "internal_error": GATEWAY,
    "store_unavailable": GATEWAY,
    "budget_store_unavailable": GATEWAY,
    "shutting_down": GATEWAY,
    "stream_broken": GATEWAY,
    "overloaded": CAPACITY,
    "no_upstream_available": UPSTREAM,
    "upstream_failed": UPSTREAM,
    "upstream_timeout": UPSTREAM,
    "upstream_rate_limited": UPSTREAM,
}
"""By the error's code; every other code is about what the caller sent, may do, or did."""


class OperationMetrics:
    """`observe` reads every finished request; the gauges are set by whoever looks after them regularly."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"tierway_{name}", about, labels, registry=registry, multiprocess_mode="livemostrecent")

        about = "Requests that ended in an error, also after their first content: the caller's, an upstream's or ours."
        self._errors = Children(Counter("tierway_errors_total", about, ("code", "blame"), registry=registry))
        self.store_up = gauge("store_up", "1 while the store takes calls, else 0.")
        self._models = Children(gauge("models", "Models that an upstream lists.", "upstream"))
        about = "Mean quality of a model's answers over that of the baseline, where one is set."
        self._ratio = Children(gauge("quality_ratio", about, "model", "upstream"))
        self._code, self._upstream, self._model = Names(50), Names(50), Names(200)
        for code, blame in BLAMES.items():
            self._errors[self._code[code], blame]  # there at 0, so that the first one is seen as an increase

    def observe(self, record: Record) -> None:
        if record.error_code is not None:
            self._errors[self._code[record.error_code], BLAMES.get(record.error_code, CALLER)].inc()

    def models(self, upstream: str, count: int) -> None:
        self._models[self._upstream[upstream],].set(count)

    def quality_ratio(self, model: str, ratio: float) -> None:
        """`model` is its full id."""
        self._ratio[self._model[model], self._upstream[model.partition("/")[0]]].set(ratio)
