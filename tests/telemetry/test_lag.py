"""The probe of the event loop: without it nobody learns why every stream stutters."""

from __future__ import annotations

import asyncio
import contextlib
import time

from app.core.tasks import cancel_if
from app.telemetry.lag import watch_lag


async def test_a_blocked_loop_shows_as_lag() -> None:
    lags: list[float] = []
    with contextlib.suppress(TimeoutError):
        async with cancel_if(watch_lag(lags.append, interval=0.001), "lag"), asyncio.timeout(5):
            while not lags:
                await asyncio.sleep(0.001)
            seen = len(lags)
            time.sleep(0.05)
            while len(lags) == seen:
                await asyncio.sleep(0.001)
    assert max(lags) >= 0.04
    assert min(lags) >= 0
