"""Shows regularly what no request tells of: how the store, the lists of models and quality by baseline stand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from app.gateway.discovery import BUILTIN, Found
from app.learning.success import Success
from app.routing.registry import Registry
from app.telemetry.operation_metrics import OperationMetrics

EVERY_SECONDS: Final = 5.0


class Kept(Protocol):
    """The store, as far as this is concerned."""

    @property
    def healthy(self) -> bool: ...


class Standing:
    """`found` and `registry` are asked anew each time."""

    def __init__(
        self,
        metrics: OperationMetrics,
        store: Kept,
        found: Callable[[], Iterable[Found]],
        registry: Callable[[], Registry],
        success: Success,
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._found = found
        self._registry = registry
        self._success = success

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        while True:
            self.show()
            await sleep(EVERY_SECONDS)

    def show(self) -> None:
        self._metrics.store_up.set(self._store.healthy)
        for found in self._found():
            if found.error is None and found.kind != BUILTIN:  # one that is away has not lost its models
                self._metrics.models(found.upstream, found.models)
        for card in self._registry().cards:
            if (ratio := self._success.ratio(card.id)) is not None:
                self._metrics.quality_ratio(card.id, ratio)
