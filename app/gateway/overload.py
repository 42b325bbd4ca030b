"""Builds what holds when there is too much to do: the gates of the upstreams, the seats before them, and the pressure
on this process by which the front refuses requests.

A part of the composition root. What counts is configured at start and may change while requests run.
"""

from __future__ import annotations

from collections.abc import Callable

from app.config.settings import Settings, same_upstreams
from app.core.clock import Clock
from app.gateway.seating import Seating, ceilings
from app.telemetry.overload_metrics import OverloadMetrics
from app.telemetry.pressure import Pressure, memory_there, resident
from app.upstreams.gates import Gates


class Overload:
    """Of one gateway; several processes that serve together divide ceilings and memory among them. There are no gates
    before it is configured."""

    def __init__(
        self, settings: Settings, clock: Clock, metrics: OverloadMetrics, memory: Callable[[], int] = resident
    ) -> None:
        limits, workers = settings.limits, max(1, settings.workers)
        self.metrics = metrics
        self.gates = Gates(clock, metrics.gate, 1 / workers)
        self.seating = Seating(self.gates, limits.queue_seconds, self._dearer_after, metrics.shed)
        most = limits.memory_bytes or memory_there(workers)
        self.pressure = Pressure(limits.lag_seconds, most, memory, clock)
        self._settings = settings

    def inherit(self, before: Overload) -> None:
        """Whoever goes on calling an upstream for the gateway before counts here too."""
        self.gates.inherit(before.gates, same_upstreams(before._settings, self._settings))

    def configure(self, settings: Settings) -> None:
        """What may change while requests run."""
        self._settings = settings
        self.gates.configure(ceilings(settings.upstreams))

    def after(self, configure: Callable[[Settings], None]) -> Callable[[Settings], None]:
        """Configures that, then this."""

        def both(settings: Settings) -> None:
            configure(settings)
            self.configure(settings)

        return both

    def _dearer_after(self) -> float | None:
        return self._settings.routing.max_local_latency
