"""Alerts wake people by these: a caller's mistake must not look like ours, nor a broken stream like an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from app.core.errors import Blame, GatewayError
from app.telemetry.metrics import new_registry
from app.telemetry.operation_metrics import BLAMES, CALLER, UPSTREAM, OperationMetrics
from tests.telemetry.test_metrics import RECORD


@pytest.fixture
def registry() -> CollectorRegistry:
    return new_registry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> OperationMetrics:
    return OperationMetrics(registry)


def tree(root: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    yield root
    for each in root.__subclasses__():
        yield from tree(each)


@pytest.mark.parametrize("error", sorted(set(tree()), key=str), ids=lambda error: error.__name__)
def test_blame_is_that_of_the_tree_of_errors(error: type[GatewayError]) -> None:
    """A code that is not in the table counts as the caller's, so every other one has to be there."""
    if not error.__module__.startswith("app."):
        return
    blame = BLAMES.get(error.code, CALLER)
    if error.blame is Blame.UPSTREAM:
        assert blame == UPSTREAM or error.code == "overloaded"
    else:
        assert (blame == CALLER) == (error.blame is Blame.CALLER) or error.code == "upstream_timeout"


def test_an_error_counts_however_late_it_came(registry: CollectorRegistry, metrics: OperationMetrics) -> None:
    metrics.observe(RECORD)
    metrics.observe(replace(RECORD, status=200, error_code="upstream_failed"))
    metrics.observe(replace(RECORD, status=401, error_code="invalid_api_key"))

    def value(code: str, blame: str) -> float | None:
        return registry.get_sample_value("tierway_errors_total", {"code": code, "blame": blame})

    assert (value("upstream_failed", "upstream"), value("invalid_api_key", "caller")) == (1, 1)
    assert value("internal_error", "gateway") == 0, "a series that is born at 1 never increased"


def test_gauges_show_what_they_were_told(registry: CollectorRegistry, metrics: OperationMetrics) -> None:
    metrics.store_up.set(True)
    metrics.models("gpu", 3)
    metrics.quality_ratio("gpu/qwen", 0.93)
    assert registry.get_sample_value("tierway_store_up") == 1
    assert registry.get_sample_value("tierway_models", {"upstream": "gpu"}) == 3
    assert registry.get_sample_value("tierway_quality_ratio", {"model": "gpu/qwen", "upstream": "gpu"}) == 0.93
