"""Files of lines that one process appends to while it lives: a lock, which the kernel drops with the process, tells the
others whether it does. Reading such files bears what a crash, a full disk or an editor left in them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

LONGEST_LINE: Final = 1 << 20
NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
"""What file systems say that have no locks: there, files of dead processes stay as they are."""


class OwnedFile:
    """An open file of ours. Every method blocks and may raise `OSError`."""

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self.size = 0
        self._file = file

    @classmethod
    def create(cls, path: Path) -> OwnedFile:
        """It is locked before it has its name, so nobody ever finds it without an owner."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _lock(file)
            fresh.rename(path)
            sync_folder(path.parent)
        except OSError:
            os.close(file)
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        return cls(path, file)

    def append(self, data: bytes) -> None:
        """On the disk when it returns."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fsync(self._file)
        self.size += len(data)

    def clear(self) -> None:
        os.ftruncate(self._file, 0)
        self.size = 0

    def close(self, mark: str = "") -> None:
        """`mark` is put into its name, for whoever finds it."""
        try:
            if mark:
                self.path.rename(self.path.with_suffix(mark + self.path.suffix))
        finally:
            os.close(self._file)

    def discard(self) -> None:
        """Removes it while it is still ours."""
        self.path.unlink(missing_ok=True)
        self.close()


def take_over(path: Path) -> int | None:
    """The open, locked file of a process that is dead; None while it lives, or when somebody was faster."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_nlink:
            return file
    except OSError:
        pass  # it has an owner, or this file system cannot tell
    os.close(file)
    return None


def sync_folder(folder: Path) -> None:
    """So that a name survives a loss of power too."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _lock(file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


@dataclass(slots=True)
class Tally:
    """What was found by reading. `torn` lines were cut off by a crash at the end of a file, `foreign` ones are nothing
    we wrote, `damaged` counts packed files that end too early."""

    files: int = 0
    entries: int = 0
    torn: int = 0
    foreign: int = 0
    damaged: int = 0


def lines_of(path: Path, tally: Tally, start: int = 0) -> Iterator[bytes]:
    """The whole lines of a file, packed or not. From `start` on, the first of them may be half a line."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        tally.files += 1
        file.seek(start)
        try:
            yield from _lines(file, tally)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            tally.damaged += 1


def _lines(file: IO[bytes] | gzip.GzipFile, tally: Tally) -> Iterator[bytes]:
    whole = True
    while line := file.readline(LONGEST_LINE):
        ended = line.endswith(b"\n")
        if whole and ended:
            yield line
        elif whole:
            if len(line) < LONGEST_LINE:
                tally.torn += 1
            else:
                tally.foreign += 1
        whole = ended
