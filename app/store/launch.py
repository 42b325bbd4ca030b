"""Becomes the embedded server: run as a script, it ties the process to the life of its parent and then executes the
server in its own place. It is a program of its own because a child of a process with threads must not run Python code
between fork and exec. It imports nothing of ours, and needs no site-packages.

    python -I -S launch.py PARENT_PID LOCK_FD SERVER [ARGUMENT...]
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, prctl: Callable[[int, int], int], getppid: Callable[[], int] = os.getppid) -> None:
    """Asks the kernel for SIGKILL when the thread that started us ends; leaves at once if that was before we asked."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if getppid() != parent:
        raise SystemExit("the parent is gone")


def namespace() -> str:
    """Where a process id means what it says: containers that share a folder do not share their process ids."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "-"


def sign(lock: int) -> None:
    """Writes our id into the lock that the server will hold, so that whoever finds it held knows by whom."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} {namespace()}".encode(), 0)


def main(arguments: Sequence[str]) -> None:
    parent, lock, *command = arguments
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:  # Linux; elsewhere a server that outlives its holder is replaced by the next one
        die_with_parent(int(parent), prctl)
    sign(int(lock))
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
