"""Looks at the limits every other second, beside the requests: for the gauges, for alerts, and for who is counted.

What counts all together is always looked at; of what counts for one each, what this gateway used lately.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Final

from app.core.clock import Clock
from app.core.errors import StoreUnavailable
from app.core.spending import Counter
from app.spend.alerts import Alerts, Reading
from app.spend.budgets import Budgets, is_operators
from app.spend.known import Known
from app.telemetry.money_metrics import Tightest

EVERY_SECONDS: Final = 2.0
LATELY: Final = 1_000
AT_ONCE: Final = 500

Uses = Callable[[Sequence[Counter]], Awaitable[list[tuple[int, int]]]]


class Watch:
    """`note` and `refused` are called by requests and cost next to nothing; `run` is a task of its own."""

    def __init__(
        self,
        budgets: Budgets,
        uses: Uses,
        alerts: Alerts,
        known: Known,
        show: Callable[[Tightest], None],
        clock: Clock,
    ) -> None:
        self._budgets = budgets
        self._uses = uses
        self._alerts = alerts
        self._known = known
        self._show = show
        self._clock = clock
        self._noted: dict[str, Counter] = {}
        self._recent: dict[str, Counter] = {}
        self._refused: set[str] = set()

    def note(self, counters: Iterable[Counter]) -> None:
        """These have just changed."""
        for counter in counters:
            if counter.limit_nano is not None:
                self._noted[counter.key] = counter

    def refused(self, counter: Counter) -> None:
        """This has just refused a request."""
        self._noted[counter.key] = counter
        self._refused.add(counter.key)

    async def run(self, every: float = EVERY_SECONDS) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self.look()
            await asyncio.sleep(every)

    async def look(self) -> None:
        """Once. Raises `StoreUnavailable`; nothing is lost by it."""
        now = self._clock.now()
        now_ms = int(now * 1_000)
        self._forget(now_ms)
        standing = (one.counter for one in self._budgets.standing(now_ms))
        counters = {**self._recent, **{each.key: each for each in standing if is_operators(each)}}
        used = await used_of(self._uses, list(counters.values()))
        refused, self._refused = self._refused, set()
        readings = [Reading(counters[key], *used[key], key in refused) for key in counters]
        self._show(tightest(readings))
        try:
            await self._alerts.look(readings)
            await self._tell_known(now)
        except StoreUnavailable:
            self._refused |= refused
            raise

    def _forget(self, now_ms: int) -> None:
        """Keeps the latest, of those whose period is not over."""
        noted, self._noted = self._noted, {}
        latest = {**noted, **{key: each for key, each in self._recent.items() if key not in noted}}
        going = ((key, each) for key, each in latest.items() if is_operators(each) and _goes_on(each, now_ms))
        self._recent = dict(islice(going, LATELY))

    async def _tell_known(self, now: float) -> None:
        budgets = self._budgets
        agents, sessions = budgets.agents, budgets.sessions
        budgets.agents, budgets.sessions = set(), set()
        try:
            await self._known.remember(agents, sessions, now)
        except StoreUnavailable:
            budgets.agents |= agents
            budgets.sessions |= sessions
            raise


async def used_of(uses: Uses, counters: Sequence[Counter]) -> dict[str, tuple[int, int]]:
    """By key, (used, held): not all in one breath, because requests use the same connection."""
    found: dict[str, tuple[int, int]] = {}
    for start in range(0, len(counters), AT_ONCE):
        some = counters[start : start + AT_ONCE]
        found.update(zip((each.key for each in some), await uses(some), strict=True))
    return found


def tightest(readings: Iterable[Reading]) -> Tightest:
    """Per scope and period the one that is nearest to its limit."""
    found: dict[tuple[str, str], Reading] = {}
    for reading in readings:
        labels = reading.counter.scope, reading.counter.period
        if labels not in found or reading.share > found[labels].share:
            found[labels] = reading
    return {labels: (each.counter.limit_nano or 0, each.used_nano, each.held_nano) for labels, each in found.items()}


def _goes_on(counter: Counter, now_ms: int) -> bool:
    return not counter.ends_ms or now_ms < counter.ends_ms
