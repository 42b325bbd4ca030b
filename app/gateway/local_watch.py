"""How the local models do, for `cloud: emergency`: failures in a row, late first tokens, quality."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Final

from app.core.clock import Clock, SystemClock
from app.core.errors import Blame
from app.core.record import Record
from app.routing.emergency import Facts, trigger

SYSTEM: Final = SystemClock()
LATELY: Final = 5
STALE_SECONDS: Final = 60.0
"""After which a late first token says nothing: while the local models are passed over for it, there is no newer one."""
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
        since = self._clock.monotonic() - STALE_SECONDS
        firsts = [seconds for when, seconds in self._first_tokens if when >= since]
        late = median(firsts) if len(firsts) == LATELY else None
        quality = self._quality()
        return trigger(
            Facts(
                failures_in_a_row=self._failures_in_a_row,
                quality=quality,
                baseline=None if quality is None else 1.0,
                first_token=late,
                reachable=self._reachable(),
            )
        )
