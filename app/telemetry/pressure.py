"""Whether this process has too much to do: its event loop is late again and again, or its memory nearly full.

It looks at measures that others take, a few times a second, so that asking costs a request nothing. Who refuses what,
when it is so, is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

LAG, MEMORY = "event_loop_lag", "memory"
IN_A_ROW: Final = 3
"""So many wake-ups must be late: one is a page fault, or a neighbour."""
FULL: Final = 0.85
"""The share of the memory there is that a gateway takes at most, where nobody says how much."""
STATM: Final = Path("/proc/self/statm")
CGROUPS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Pressure:
    """`cause` says what is too much now, None when nothing is. `memory_most` None: memory is no reason."""

    def __init__(self, lag_most: float, memory_most: int | None, memory: Callable[[], int]) -> None:
        self.cause: str | None = None
        self._lag_most = lag_most
        self._memory_most = memory_most
        self._memory = memory
        self._late = deque[bool](maxlen=IN_A_ROW)

    def observe(self, lag: float) -> None:
        """By how many seconds the event loop was late just now."""
        self._late.append(lag > self._lag_most)
        if len(self._late) == IN_A_ROW and all(self._late):
            self.cause = LAG
        elif self._memory_most is not None and self._memory() > self._memory_most:
            self.cause = MEMORY
        else:
            self.cause = None


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
