"""The way to one upstream: so many seats at a time, and a bounded line before them, in which the urgent stand first.

A seat that is given back goes to whoever is first in line, at once. Nobody overtakes, except by rank. Who leaves while
waiting leaves the line; who would wait longer than he may is told at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from app.core.clock import Clock
from app.core.errors import Busy, OutOfTime, Shed, Throttled, TimedOut
from app.upstreams.limit import Limit

RANKS: Final = 3
"""Interactive, batch, shadow."""
LINE: Final = 1_024
"""The most that wait for one upstream."""
NEWEST: Final = 0.1
"""How much the newest time in a seat counts."""
RETRY_MOST: Final = 60.0

Told = Callable[[str, int, int], None]


class Gate:
    """`told(name, limit, waiting)` hears of every change of either."""

    def __init__(self, name: str, limit: Limit, clock: Clock, told: Told = lambda name, limit, waiting: None) -> None:
        self.name = name
        self.limit = limit
        self.taken = 0
        self.waiting = 0
        self._clock = clock
        self._lines = tuple(OrderedDict[asyncio.Future[None], None]() for _ in range(RANKS))
        self._seconds: float | None = None  # that a seat is usually taken
        self._told = told
        self._last_told = limit.calls
        told(name, limit.calls, 0)

    def configure(self, start: int, most: int) -> None:
        """Another ceiling from now on; what was learnt under the old one is forgotten if it is another one indeed."""
        if self.limit.configure(start, most):
            self._call_up()

    def enter(self) -> bool:
        """Takes a seat if there is one. Where somebody waits there is none."""
        if self.taken >= self.limit.calls:
            return False
        self.taken += 1
        return True

    async def wait(self, rank: int, seconds: float) -> None:
        """Takes a seat as soon as it is this one's turn. Raises `Shed` when that is not within so many seconds, or
        cannot be."""
        if seconds <= 0 or self._expected(rank) > seconds or not self._room(rank):
            raise self._shed()
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        line = self._lines[rank]
        line[place] = None
        self._moved(1)
        timer = loop.call_later(seconds, self._give_up, place)
        try:
            await place
        except BaseException:  # given up, pushed out, or its client left: perhaps in the moment it got its seat
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()
            raise
        finally:
            timer.cancel()
            if place in line:
                del line[place]
                self._moved(-1)

    def leave(self) -> None:
        """Gives a seat back: to the first in line, if there is one."""
        self.taken -= 1
        self._call_up()

    def ended(self, seconds: float, error: BaseException | None) -> None:
        """A call is over, after so many seconds in its seat: well (None), or with this error."""
        self._seconds = seconds if self._seconds is None else self._seconds + NEWEST * (seconds - self._seconds)
        if error is None:
            self.limit.well(self.taken, self._clock.monotonic())
        elif isinstance(error, (Throttled, Busy, TimedOut)) and not isinstance(error, OutOfTime):
            self.limit.refused(self._clock.monotonic())
        self.leave()

    def first_token(self, model: str, seconds: float) -> None:
        """A stream begins, so many seconds after it was asked for."""
        self.limit.first_token(model, seconds, self.taken, self._clock.monotonic())
        self._call_up()

    def _call_up(self) -> None:
        """Gives free seats to those who wait."""
        while self.waiting and self.taken < self.limit.calls:
            line = next(each for each in self._lines if each)
            place, _ = line.popitem(last=False)
            self._moved(-1)
            if not place.done():
                self.taken += 1
                place.set_result(None)
        if self.limit.calls != self._last_told:
            self._moved(0)

    def _room(self, rank: int) -> bool:
        """Whether there is room in line; the last of the least urgent makes some."""
        if self.waiting < LINE:
            return True
        worst = max(index for index, line in enumerate(self._lines) if line)
        if worst <= rank:
            return False
        place, _ = self._lines[worst].popitem(last=True)
        self._moved(-1)
        self._give_up(place)
        return True

    def _give_up(self, place: asyncio.Future[None]) -> None:
        if not place.done():
            place.set_exception(self._shed())

    def _expected(self, rank: int) -> float:
        """Seconds until somebody who joins now would have a seat; none where nobody can tell."""
        if self._seconds is None or self.limit.grows:
            return 0.0
        ahead = sum(map(len, self._lines[: rank + 1]))
        return (ahead + 1) * self._seconds / self.limit.calls

    def _moved(self, change: int) -> None:
        self.waiting += change
        self._last_told = self.limit.calls
        self._told(self.name, self.limit.calls, self.waiting)

    def _shed(self) -> Shed:
        soon = min(max(1.0, self._expected(RANKS - 1)), RETRY_MOST)
        return Shed(f"The upstream {self.name} has all the calls it can take.", cause="upstream", retry_after=soon)
