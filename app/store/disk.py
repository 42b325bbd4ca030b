"""Looks after the embedded server's files while it runs: every second it writes them to the disk, and sees that there
is room for more.

The server could sync by itself (`everysec`), but while it does so it acknowledges writes that it has not handed to the
kernel yet: killed then, it forgets them. So it is told to leave that alone, which makes it hand over every write before
it answers, and the supervisor syncs from outside. A killed process loses nothing then, a loss of power about a second.
Where that is too much there is `always`.

A server that runs into a full disk after it has rewritten its file leaves a hole in it (seen with Valkey 9.1) and does
not start again. So writes are refused before that, until there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

ROUND_SECONDS: Final = 1.0
ROOM_BYTES: Final = 16 << 20

log = logging.getLogger("tierway.store")


def has_room(folder: Path) -> bool:
    return shutil.disk_usage(folder).free >= ROOM_BYTES


async def keep_safe(folder: Path, refuse: Callable[[bool], Awaitable[bool]], every: float = ROUND_SECONDS) -> None:
    """Runs until it is cancelled. `refuse` stops and admits writes, and says whether that worked."""
    refusing = False
    synced: dict[Path, int] = {}
    while True:
        room = has_room(folder)
        if room is refusing and await refuse(not room):
            refusing = not room
            log.error("the disk of %s is %s", folder, "full: no more writes are taken" if refusing else "free again")
        synced = await _sync_changed(folder, synced)
        await asyncio.sleep(every)


async def _sync_changed(folder: Path, synced: dict[Path, int]) -> dict[Path, int]:
    sizes = _sizes(folder)
    for path, size in sizes.items():
        if synced.get(path) != size:
            await asyncio.to_thread(_sync, path)
    return sizes


def _sizes(folder: Path) -> dict[Path, int]:
    """A file may vanish at any moment: the server rewrites them."""
    sizes: dict[Path, int] = {}
    for path in folder.glob("appendonlydir/*.aof"):
        with contextlib.suppress(FileNotFoundError):
            sizes[path] = path.stat().st_size
    return sizes


def _sync(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    except FileNotFoundError:
        pass
    except OSError as error:
        log.error("the store could not be written to the disk: %s", error.strerror or error)
