"""What this gateway knows of the store, in files of the data folder: the epoch that it last spent in, which tells an
emptied store from a new one, and what was acknowledged in it, which tells an old one from that.

Where the file of the epoch is lost, the journal beside it remembers too; where the other is, that is forgotten.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from app.spend.journal import DAY_MS, entries

NAME: Final = "epoch"
ACKNOWLEDGED: Final = "acknowledged"
LONGEST: Final = 200
MOST_BYTES: Final = 100_000
TRUSTED_MS: Final = 300 * DAY_MS
"""The store remembers for longer than that how many settlements it acknowledged."""

log = logging.getLogger("tierway.spend")


class Acknowledged(NamedTuple):
    """So many settlements the store acknowledged in this epoch to the gateways of this folder, who are called `name`
    there, as of `at_ms`. `past` are epochs that were before."""

    name: str
    epoch: str = ""
    number: int = 0
    at_ms: int = 0
    past: tuple[str, ...] = ()


class Remembered:
    """All of it blocks, and is done at start, beside the requests, or once in a blue moon. A disk that takes nothing
    costs the memory of it, not the service."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of all gateways that share a data folder."""
        self._folder = folder
        self._fails = False

    def read(self) -> str:
        """ "" when there never was one here."""
        try:
            found = (self._folder / NAME).read_text(encoding="utf-8", errors="replace")[:LONGEST].strip()
        except FileNotFoundError:
            found = ""
        return found or max(((entry.at_ms, entry.epoch) for entry in entries(self._folder)), default=(0, ""))[1]

    def write(self, epoch: str) -> None:
        try:
            self._put(NAME, epoch.encode(errors="replace"))
        except OSError as error:
            log.error("which epoch of the ledger this is cannot be remembered: %s", error.strerror or error)

    def acknowledged(self, epoch: str, now_ms: int) -> Acknowledged:
        """What is still worth something of it in this epoch. Gateways that share a folder get one name."""
        found = self._acknowledged()
        if found is None:
            with contextlib.suppress(OSError):  # it is said when something is to be noted
                self._put(ACKNOWLEDGED, _encode(Acknowledged(secrets.token_hex(8), epoch, 0, now_ms)), only_new=True)
            found = self._acknowledged() or Acknowledged(secrets.token_hex(8), epoch)
        if found.epoch != epoch:
            past = (*found.past, found.epoch) if found.epoch else found.past
            return found._replace(epoch=epoch, number=0, past=tuple(each for each in past if each != epoch))
        return found if now_ms - found.at_ms < TRUSTED_MS else found._replace(number=0)

    def note(self, known: Acknowledged) -> None:
        try:
            self._put(ACKNOWLEDGED, _encode(known))
            self._fails = False
        except OSError as error:
            if not self._fails:
                log.error("what the store acknowledged cannot be remembered: %s", error.strerror or error)
            self._fails = True

    def _acknowledged(self) -> Acknowledged | None:
        """None where there is none, and for whatever else stands there."""
        try:
            said = orjson.loads((self._folder / ACKNOWLEDGED).read_bytes()[:MOST_BYTES])
            found = Acknowledged(**{**said, "past": tuple(said["past"])})
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
            return None
        texts, numbers = (found.name, found.epoch, *found.past), (found.number, found.at_ms)
        sound = all(type(each) is str for each in texts) and all(type(each) is int and each >= 0 for each in numbers)
        return found if sound and found.name else None

    def _put(self, name: str, data: bytes, *, only_new: bool = False) -> None:
        fresh = self._folder / f".{name}-{secrets.token_hex(8)}"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with open(fresh, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if only_new:
                with contextlib.suppress(FileExistsError):
                    os.link(fresh, self._folder / name)
            else:
                fresh.rename(self._folder / name)
        finally:
            fresh.unlink(missing_ok=True)


def _encode(known: Acknowledged) -> bytes:
    return orjson.dumps(known._asdict())
