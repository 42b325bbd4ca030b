"""CPU time, memory and control of a tree of processes, read from /proc alone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
STORES: Final = frozenset({b"valkey-server", b"redis-server"})
ESTABLISHED: Final = b"01"
TICK: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def stat_fields(stat: bytes) -> list[bytes]:
    """The fields of a `stat` file after the command's name, which may itself hold blanks and brackets."""
    return stat[stat.rindex(b")") + 2 :].split()


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for folder in os.listdir(PROC):
        if folder.isdigit() and (stat := _read(f"{folder}/stat")):
            children.setdefault(int(stat_fields(stat)[1]), []).append(int(folder))
    found: list[int] = []
    left = [root]
    while left:
        pid = left.pop()
        if (PROC / str(pid)).exists():
            found.append(pid)
        left += children.get(pid, [])
    return found


def without_stores(pids: Sequence[int]) -> list[int]:
    """Those that are no server of a store: what is the gateway's own."""
    return [pid for pid in pids if _read(f"{pid}/comm").strip() not in STORES]


class CpuMeter:
    """CPU seconds that processes use from now on.

    Times per thread are exact to the nanosecond, but go with their thread; ticks of 10 ms stay. The exact ones are
    believed as long as both agree.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._threads = _thread_seconds(pids)
        self._ticks = _tick_seconds(pids)

    def seconds(self) -> float:
        coarse = _tick_seconds(self._pids) - self._ticks
        now = _thread_seconds(self._pids)
        exact = sum(used - self._threads.get(thread, 0.0) for thread, used in now.items())
        return exact if now and abs(exact - coarse) < 0.05 + 0.1 * coarse else coarse


class OtherLoad:
    """What processes outside the tree of `root` take of a core from now on. No core or no tree: nothing is told."""

    def __init__(self, core: int | None, root: int | None) -> None:
        self._core, self._root = core, root
        self._since = time.perf_counter()
        self._before = self._seconds()

    def share(self) -> float:
        """As a share of the core; never below nothing, as ticks are coarse."""
        return max(0.0, (self._seconds() - self._before) / (time.perf_counter() - self._since))

    def _seconds(self) -> float:
        if self._core is None or self._root is None:
            return 0.0
        return core_busy(_read("stat"), self._core) - _tick_seconds(tree(self._root))


def core_busy(stat: bytes, core: int) -> float:
    """Seconds in which a core did anything, from the system's `stat` file."""
    [fields] = [line.split()[1:9] for line in stat.splitlines() if line.startswith(b"cpu%d " % core)]
    ticks = [int(field) for field in fields]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICK


def rss(pids: Sequence[int]) -> int:
    """Resident bytes; what processes share counts for each."""
    return sum(int(found.split()[1]) * PAGE for pid in pids if (found := _read(f"{pid}/statm")))


def pss(pids: Sequence[int]) -> int:
    """Resident bytes; what processes share is divided among them."""
    lines = (line for pid in pids for line in _read(f"{pid}/smaps_rollup").splitlines())
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:"))


def threads(pids: Sequence[int]) -> int:
    return sum(int(stat_fields(stat)[17]) for pid in pids if (stat := _read(f"{pid}/stat")))


def descriptors(pids: Sequence[int]) -> int:
    """Open files and sockets."""
    found = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found += len(os.listdir(PROC / str(pid) / "fd"))
    return found


def connections_to(port: int) -> int:
    """Connections of this machine to that port of its own, closing ones left out."""
    rows = (line.split() for name in ("tcp", "tcp6") for line in _read(f"net/{name}").splitlines()[1:])
    return sum(row[3] == ESTABLISHED and int(row[2].rpartition(b":")[2], 16) == port for row in rows)


def send(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started meanwhile stays on that core. None: anywhere."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _tick_seconds(pids: Sequence[int]) -> float:
    fields = (stat_fields(stat) for pid in pids if (stat := _read(f"{pid}/stat")))
    return sum(int(each[11]) + int(each[12]) for each in fields) / TICK


def _thread_seconds(pids: Sequence[int]) -> dict[str, float]:
    found: dict[str, float] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in os.listdir(PROC / str(pid) / "task"):
                if times := _read(f"{pid}/task/{thread}/schedstat").split():
                    found[thread] = int(times[0]) / 1e9
    return found


def _read(name: str) -> bytes:
    """A file of /proc; nothing where the process is gone."""
    try:
        return (PROC / name).read_bytes()
    except OSError:
        return b""
