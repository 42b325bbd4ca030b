"""What no request tells of: an operator learns of a store that is away although nobody asks for anything."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from app.gateway.discovery import BUILTIN, Found
from app.gateway.standing import EVERY_SECONDS, Standing
from app.learning.success import Success
from app.routing.registry import Registry
from app.telemetry.operation_metrics import OperationMetrics


async def test_it_shows_store_models_and_quality_again_and_again() -> None:
    registry = CollectorRegistry()
    store = SimpleNamespace(healthy=True)
    found = [
        Found("gpu", "vllm", True, 3, None),
        Found("cloud", "anthropic", False, 9, "away"),
        Found("tierway", BUILTIN, True, 1, None),
    ]
    known = cast(Registry, SimpleNamespace(cards=[SimpleNamespace(id="gpu/a"), SimpleNamespace(id="gpu/b")]))
    success = cast(Success, SimpleNamespace(ratio={"gpu/a": 0.9}.get))
    standing = Standing(OperationMetrics(registry), store, lambda: found, lambda: known, success)
    seen: list[float | None] = []

    async def sleep(seconds: float) -> None:
        assert seconds == EVERY_SECONDS
        seen.append(registry.get_sample_value("tierway_store_up"))
        store.healthy = False
        if len(seen) == 2:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await standing.run(sleep)
    assert seen == [1, 0]
    assert registry.get_sample_value("tierway_models", {"upstream": "gpu"}) == 3
    for absent in ("cloud", "tierway"):
        assert registry.get_sample_value("tierway_models", {"upstream": absent}) is None
    assert registry.get_sample_value("tierway_quality_ratio", {"model": "gpu/a", "upstream": "gpu"}) == 0.9
    assert registry.get_sample_value("tierway_quality_ratio", {"model": "gpu/b", "upstream": "gpu"}) is None
