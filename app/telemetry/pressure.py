"""Whether this process has too much to do: its event loop is late and stays so, or its memory is nearly full.

It looks at measures that others take, a few times a second, so that asking costs a request nothing. Who refuses what,
when it is so, is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from app.core.clock import Clock

LAG, MEMORY = "event_loop_lag", "memory"
PATIENCE_SECONDS: Final = 2.0
"""So long it may be late: a thousand clients that come at once are served, if a little later."""
PROMPT_SECONDS: Final = 0.1
"""And so long when it had too much not long ago: what comes now is no burst but more than can be done."""
REMEMBER_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.25
"""How often the system is asked for the memory, which costs more than all else here."""
FULL: Final = 0.85
"""The share of the memory there is that a gateway takes at most, where nobody says how much."""
STATM: Final = Path("/proc/self/statm")
CGROUPS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Pressure:
    """`cause` says what is too much now, None when nothing is. `memory_most` None: memory is no reason."""

    def __init__(self, lag_most: float, memory_most: int | None, memory: Callable[[], int], clock: Clock) -> None:
        self.cause: str | None = None
        self._clock = clock
        self._lag_most = lag_most
        self._memory_most = memory_most
        self._memory = memory
        self._full = False
        self._look_at = -math.inf
        self._late_since: float | None = None
        self._too_late_at = -math.inf

    def observe(self, lag: float) -> None:
        """By how many seconds the event loop was late just now."""
        if self._stays_late(lag, self._clock.monotonic()):
            self.cause = LAG
        elif self._is_full(self._clock.monotonic()):
            self.cause = MEMORY
        else:
            self.cause = None

    def _is_full(self, now: float) -> bool:
        if self._memory_most is not None and now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._full = self._memory() > self._memory_most
        return self._full

    def _stays_late(self, lag: float, now: float) -> bool:
        if lag <= self._lag_most:
            self._late_since = None
            return False
        if self._late_since is None:
            self._late_since = now - lag
        patience = PROMPT_SECONDS if now - self._too_late_at < REMEMBER_SECONDS else PATIENCE_SECONDS
        if now - self._late_since < patience:
            return False
        self._too_late_at = now
        return True


def resident(statm: Path = STATM) -> int:
    """Bytes of memory this process has; none where the system does not tell."""
    try:
        return int(statm.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def memory_there(processes: int = 1, files: tuple[Path, ...] = CGROUPS) -> int:
    """What each of so many processes may take of the container's memory, or of the machine's."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            there = min(there, int(file.read_text()))
    return int(there * FULL / processes)
