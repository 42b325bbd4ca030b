"""Writes the embedded server's append-only file to the disk every second.

The server could do it itself (`everysec`), but while it does so it acknowledges writes that it has not handed to the
kernel yet: killed then, it forgets them. So it is told to leave syncing alone, which makes it hand over every write
before it answers, and the supervisor syncs from outside. A killed process loses nothing then; a loss of power about
a second. Where that is too much there is `always`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import Final

SYNC_SECONDS: Final = 1.0

log = logging.getLogger("tierway.store")


async def keep_synced(folder: Path, every: float = SYNC_SECONDS) -> None:
    """Runs until it is cancelled. Files that did not change since the last round are left alone."""
    synced: dict[Path, int] = {}
    while True:
        await asyncio.sleep(every)
        sizes = _sizes(folder)
        for path, size in sizes.items():
            if synced.get(path) != size:
                await asyncio.to_thread(_sync, path)
        synced = sizes


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
