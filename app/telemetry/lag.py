"""How late the event loop is: whoever blocks it, everybody's tokens wait. Started by the owner of tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL_SECONDS = 0.05


async def watch_lag(*observers: Callable[[float], None], interval: float = INTERVAL_SECONDS) -> None:
    """Tells all `observers`, for ever, by how many seconds the loop woke up later than asked."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        lag = max(0.0, loop.time() - due)
        for observe in observers:
            observe(lag)
