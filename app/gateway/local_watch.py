"""How the local models do, for `cloud: emergency`: failures in a row, late first tokens, quality."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Final

from app.core.clock import Clock, SystemClock
from app.core.errors import Blame
from app.core.plan import Plan
from app.core.record import Record
from app.gateway.conclusion import Failures
from app.routing.emergency import Facts, found_out, trigger

SYSTEM: Final = SystemClock()
LATELY: Final = 5
STALE_SECONDS: Final = 60.0
"""After which a late first token says nothing: while the local models are passed over for it, there is no newer one."""
STALE_QUALITY_SECONDS: Final = 300.0
"""The same of a quality that nothing has moved since."""
CHAT: Final = "chat"


class LocalWatch:
    """A reader of every record. `is_local(upstream)`; `quality()` is the local models' share of their baseline, None
    while unknown; `reachable()`: whether some local upstream answers."""

    def __init__(
        self,
        is_local: Callable[[str], bool],
        quality: Callable[[], float | None],
        reachable: Callable[[], bool],
        clock: Clock = SYSTEM,
    ) -> None:
        self._is_local = is_local
        self._quality = quality
        self._reachable = reachable
        self._failures_in_a_row = 0
        self._clock = clock
        self._last_quality: tuple[float | None, float] = (None, 0.0)  # (quality, since when)
        self._first_tokens: deque[tuple[float, float]] = deque(maxlen=LATELY)  # (when, seconds)

    def observe(self, record: Record) -> None:
        if record.endpoint != CHAT:
            return  # an embedding says nothing of the models that talk
        for attempt in record.attempts:
            if not self._is_local(attempt.upstream):
                continue
            if attempt.blame == Blame.UPSTREAM:
                self._failures_in_a_row += 1
            elif attempt.outcome == "ok":
                self._failures_in_a_row = 0
        if record.local and record.stream and len(record.attempts) == 1 and record.first_token_seconds is not None:
            self._first_tokens.append((self._clock.monotonic(), record.first_token_seconds))

    def trigger(self) -> str | None:
        """Why paid upstreams may be used now, if so."""
        return self._trigger(0)

    def trigger_after(self, plan: Plan, failures: Failures) -> str | None:
        """The same for a request under way, by what it has met as well. Its record is still to come."""
        failed = sum(candidate.card.local and error.blame is Blame.UPSTREAM for candidate, error in failures)
        local = (candidate.card for candidate in plan.candidates if candidate.card.local)
        return self._trigger(failed) or found_out(local, failures)

    def _trigger(self, failed: int) -> str | None:
        now = self._clock.monotonic()
        since = now - STALE_SECONDS
        firsts = [seconds for when, seconds in self._first_tokens if when >= since]
        late = median(firsts) if len(firsts) == LATELY else None
        quality = self._fresh_quality(now)
        return trigger(
            Facts(
                failures_in_a_row=self._failures_in_a_row + failed,
                quality=quality,
                baseline=None if quality is None else 1.0,
                first_token=late,
                reachable=self._reachable(),
            )
        )

    def _fresh_quality(self, now: float) -> float | None:
        """None once it has not moved for long: while the local models are passed over for it, nothing can move it."""
        quality = self._quality()
        if quality != self._last_quality[0]:
            self._last_quality = (quality, now)
        return quality if now - self._last_quality[1] <= STALE_QUALITY_SECONDS else None
