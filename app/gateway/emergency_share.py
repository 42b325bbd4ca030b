"""What share of all requests paid models answered because of an emergency: an event each, and alerts when they are
many. `cloud: emergency` is for what is rare; when it is not, somebody should know before the bill does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from app.core.clock import Clock
from app.core.record import Record
from app.telemetry.logs import get_logger

WINDOW_SECONDS: Final = 3_600.0
SLICE_SECONDS: Final = 60.0
LEAST: Final = 100
"""Requests below which a share says nothing."""
LEVELS: Final = (0.01, 0.05)
OVER_AT: Final = 0.5
"""The part of a level to which the share must fall before it is told again that the level was crossed."""
EVENTS: Final = ("emergency cloud is used often", "emergency cloud is used very often")

log = get_logger("routing")


class EmergencyShare:
    """A reader of every record. `observe` is told the share of the last hour, 0 while there were too few requests."""

    def __init__(self, clock: Clock, observe: Callable[[float], None]) -> None:
        self._clock = clock
        self._observe = observe
        self._slices: deque[list[float]] = deque()  # [when it began, requests, of them paid in an emergency]
        self._requests = 0
        self._paid = 0
        self._level = 0  # so many of LEVELS are crossed

    def observe(self, record: Record) -> None:
        plan = record.plan
        if plan is None:
            return
        paid = plan.trigger is not None and record.local is False
        if paid:
            log.warning("emergency cloud", trigger=plan.trigger, model=record.model, request_id=record.request_id)
        now = self._clock.monotonic()
        if not self._slices or now >= self._slices[-1][0] + SLICE_SECONDS:
            self._slices.append([now, 0, 0])
        self._slices[-1][1] += 1
        self._slices[-1][2] += paid
        self._requests += 1
        self._paid += paid
        if self._paid:  # else the share is 0, and was told to be
            self.refresh()

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """For ever: what is over an hour ago no longer counts, also while nobody asks."""
        while True:
            await sleep(SLICE_SECONDS)
            self.refresh()

    def refresh(self) -> None:
        since = self._clock.monotonic() - WINDOW_SECONDS
        while self._slices and self._slices[0][0] <= since:
            _, requests, paid = self._slices.popleft()
            self._requests -= int(requests)
            self._paid -= int(paid)
        share = self._paid / self._requests if self._requests >= LEAST else 0.0
        self._observe(share)
        self._alert(share)

    def _alert(self, share: float) -> None:
        level = sum(share > each for each in LEVELS)
        if level > self._level:
            write = log.warning if level == 1 else log.error
            write(EVENTS[level - 1], share=round(share, 4), above=LEVELS[level - 1], requests=self._requests)
            self._level = level
        else:
            self._level = max(level, sum(share > each * OVER_AT for each in LEVELS[: self._level]))
