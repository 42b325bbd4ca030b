"""Who is turned away, and why, must be seen before the complaints come."""

from __future__ import annotations

from app.telemetry.metrics import exposition, new_registry
from app.telemetry.overload_metrics import CAUSES, OverloadMetrics
from app.telemetry.pressure import LAG, MEMORY


def test_every_cause_is_there_from_the_start_and_counts() -> None:
    registry = new_registry()
    metrics = OverloadMetrics(registry)
    metrics.shed(LAG)
    text = exposition(registry).decode()
    assert {LAG, MEMORY} < set(CAUSES)
    for cause in CAUSES:
        assert f'tierway_shed_total{{cause="{cause}"}} {1.0 if cause == LAG else 0.0}' in text


def test_the_gates_are_shown_by_upstream() -> None:
    registry = new_registry()
    metrics = OverloadMetrics(registry)
    metrics.gate("gpu", 8, 0)
    metrics.gate("gpu", 5, 3)
    text = exposition(registry).decode()
    assert 'tierway_upstream_limit{upstream="gpu"} 5.0' in text
    assert 'tierway_upstream_waiting{upstream="gpu"} 3.0' in text
