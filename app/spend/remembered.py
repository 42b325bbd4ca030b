"""The epoch that this gateway last spent in, in a file of the data folder: what tells an emptied store from a new one.

Where the file is lost, the journal beside it remembers too.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from app.spend.journal import entries

NAME: Final = "epoch"
LONGEST: Final = 200

log = logging.getLogger("tierway.spend")


class Remembered:
    """All of it blocks, and is done at start or once in a blue moon."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of all gateways that share a data folder."""
        self._folder = folder

    def read(self) -> str:
        """ "" when there never was one here."""
        try:
            found = (self._folder / NAME).read_text(encoding="utf-8", errors="replace")[:LONGEST].strip()
        except FileNotFoundError:
            found = ""
        return found or max(((entry.at_ms, entry.epoch) for entry in entries(self._folder)), default=(0, ""))[1]

    def write(self, epoch: str) -> None:
        """A disk that takes nothing costs the memory of it, not the service."""
        fresh = self._folder / f".{NAME}-{os.getpid()}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(fresh, "w", encoding="utf-8") as file:
                file.write(epoch)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(self._folder / NAME)
        except OSError as error:
            log.error("which epoch of the ledger this is cannot be remembered: %s", error.strerror or error)
