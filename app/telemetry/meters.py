"""The metrics of single parts, declared once for a process."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import CollectorRegistry

from app.telemetry.money_metrics import MoneyMetrics
from app.telemetry.operation_metrics import OperationMetrics
from app.telemetry.overload_metrics import OverloadMetrics
from app.telemetry.session_metrics import SessionMetrics
from app.telemetry.stream_metrics import StreamMetrics
from app.telemetry.trace_metrics import TraceMetrics


class Meters(NamedTuple):
    """One of each."""

    money: MoneyMetrics
    session: SessionMetrics
    operation: OperationMetrics
    overload: OverloadMetrics
    stream: StreamMetrics
    trace: TraceMetrics

    @classmethod
    def of(cls, registry: CollectorRegistry) -> Meters:
        return cls(
            MoneyMetrics(registry),
            SessionMetrics(registry),
            OperationMetrics(registry),
            OverloadMetrics(registry),
            StreamMetrics(registry),
            TraceMetrics(registry),
        )
