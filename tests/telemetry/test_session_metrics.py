"""A dashboard shows by this how often a prefix cache is of use."""

from __future__ import annotations

from app.telemetry.metrics import exposition, new_registry
from app.telemetry.session_metrics import SessionMetrics


def test_turns_are_counted_by_what_became_of_their_model() -> None:
    registry = new_registry()
    metrics = SessionMetrics(registry)
    for affinity in ("new", "same", "same", "changed"):
        metrics.turn(affinity)
    text = exposition(registry).decode()
    for affinity, count in (("new", 1), ("same", 2), ("changed", 1)):
        assert f'tierway_session_turns_total{{affinity="{affinity}"}} {count}.0' in text
