"""The metric of conversations that are kept: how many turns, and whether they stayed with their model."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from app.telemetry.instruments import Counter
from app.telemetry.metrics import Children


class SessionMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        about = "Turns that were kept: same model as before, changed, or new."
        self._turns = Children(Counter("tierway_session_turns_total", about, ("affinity",), registry=registry))

    def turn(self, affinity: str) -> None:
        self._turns[affinity,].inc()
