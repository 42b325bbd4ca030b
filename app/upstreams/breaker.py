"""Health of one model at one upstream: a circuit breaker and a throttle, as arithmetic on a clock handed in.

Open means "demoted to the end of the plan", never "forbidden": the last candidate is always tried. What the caller did
wrong, a client that left and a denied budget are not failures; a 429 sets a waiting time instead.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """`failures` in a row, or a share `rate` of at least `least_calls` within `window` seconds, open it for `open`
    seconds, twice as long each time, at most `max_open`. `successes` in a row close it again."""

    failures: int = 5
    window: float = 30.0
    rate: float = 0.5
    open: float = 10.0
    max_open: float = 300.0
    successes: int = 2
    least_calls: int = 10


class State(StrEnum):
    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


PROBE_SECONDS: Final = 30.0  # after which a probe that never came back no longer blocks the next


class Breaker:
    """All methods take `now` in monotonic seconds."""

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._calls: deque[tuple[float, bool]] = deque()  # (when, failed) within the window
        self.throttled_until = 0.0
        self.reset()

    def reset(self) -> None:
        """Back to closed, everything forgotten but a throttle."""
        self._calls.clear()
        self._failures_in_window = 0
        self._failures_in_row = 0
        self._successes_in_row = 0
        self._open_seconds = self._settings.open
        self._open_until: float | None = None
        self._probing_until = 0.0

    def configure(self, settings: BreakerSettings) -> None:
        """From now on; an open breaker stays open as long as was said."""
        if settings != self._settings:
            self._settings, self._open_seconds = settings, settings.open

    def state(self, now: float) -> State:
        if self._open_until is None:
            return State.CLOSED
        return State.OPEN if now < self._open_until else State.HALF_OPEN

    def open_seconds(self, now: float) -> float:
        """How long it stays open yet; 0 when it is not."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def admits(self, now: float) -> bool:
        """Whether a request may take its usual place. Half open lets one probe through at a time."""
        return self._open_until is None or (now >= self._open_until and now >= self._probing_until)

    def started(self, now: float) -> None:
        """A call is made; half open, it is the probe."""
        if self._open_until is not None and now >= self._open_until:
            self._probing_until = now + PROBE_SECONDS

    def abandoned(self, now: float) -> None:
        """A call ended without telling anything about health (the client left, the request was wrong)."""
        self._probing_until = now

    def succeeded(self, now: float) -> None:
        self._remember(now, failed=False)
        self._failures_in_row = 0
        self._probing_until = now
        if self._open_until is None:
            return
        self._successes_in_row += 1
        if self._successes_in_row >= self._settings.successes:
            self.reset()

    def failed(self, now: float, *, refused: bool = False) -> None:
        """`refused`: no connection could be made, which opens at once."""
        self._remember(now, failed=True)
        self._failures_in_row += 1
        self._successes_in_row = 0
        self._probing_until = now
        match self.state(now):
            case State.CLOSED if refused or self._too_many():
                self._open(now)
            case State.HALF_OPEN:
                self._open_seconds = min(self._open_seconds * 2, self._settings.max_open)
                self._open(now)

    def throttled(self, until: float) -> None:
        self.throttled_until = max(self.throttled_until, until)

    def _open(self, now: float) -> None:
        self._open_until = now + self._open_seconds
        self._successes_in_row = 0

    def _too_many(self) -> bool:
        calls = len(self._calls)
        return self._failures_in_row >= self._settings.failures or (
            calls >= self._settings.least_calls and self._failures_in_window >= self._settings.rate * calls
        )

    def _remember(self, now: float, *, failed: bool) -> None:
        self._calls.append((now, failed))
        self._failures_in_window += failed
        while self._calls and self._calls[0][0] <= now - self._settings.window:
            self._failures_in_window -= self._calls.popleft()[1]
