"""An operator sees whose fault a slow stream is: a client that does not read must not look like a slow model."""

from __future__ import annotations

from app.telemetry.metrics import new_registry
from app.telemetry.stream_metrics import StreamMetrics


def test_what_is_held_back_is_counted_and_leaves_nothing_behind() -> None:
    registry = new_registry()
    metrics = StreamMetrics(registry)
    metrics.blocked(100)
    metrics.held(40)
    assert registry.get_sample_value("tierway_stream_buffer_bytes") == 140
    metrics.flows(100, 2.5)
    metrics.held(-40)
    assert registry.get_sample_value("tierway_stream_buffer_bytes") == 0
    assert registry.get_sample_value("tierway_backpressure_events_total") == 1
    assert registry.get_sample_value("tierway_backpressure_seconds_total") == 2.5
