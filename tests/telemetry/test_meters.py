"""A reload must not declare metrics again: Prometheus's client refuses a second one of the same name."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from app.telemetry.meters import Meters
from app.telemetry.metrics import Metrics


def test_all_metrics_live_in_one_registry() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    assert len(Meters.of(registry)) == 6
