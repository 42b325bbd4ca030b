"""Who misses a trace must see whether it was lost, and where."""

from __future__ import annotations

from app.telemetry.metrics import new_registry
from app.telemetry.trace_metrics import TraceMetrics


def test_traces_are_counted_by_what_became_of_them() -> None:
    registry = new_registry()
    metrics = TraceMetrics(registry)
    assert registry.get_sample_value("tierway_traces_total", {"outcome": "dropped"}) == 0, "so that the first is seen"
    metrics.told("sent", 3)
    metrics.told("dropped", 1)
    values = {
        name: registry.get_sample_value("tierway_traces_total", {"outcome": name}) for name in ("sent", "dropped")
    }
    assert values == {"sent": 3, "dropped": 1}
