"""What this gateway reserved and settled, as files of its own: from all gateways' files the counters can be worked out
again when the store has lost them.

One process writes one file at a time. A full one is sealed: packed, and named after the moment at which the last of its
counters is over, so that whoever makes room need not read it. A file that a dead process left is taken over by whoever
starts next, who also gets its last settlements (`left_over`), because that process may have died before the store had
them; it is sealed a minute later, when those are in the outbox. What entries mean together is not decided here
(`rebuild`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import secrets
import shutil
from collections import deque
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from app.core.clock import Clock
from app.core.spending import Counter
from app.core.tasks import TaskOwner
from app.spend.appending import Appender
from app.spend.entries import CORRECTED, SETTLED, Entry, decode, encode
from app.spend.lines import OwnedFile, Tally, lines_of, sync_folder, take_over

__all__ = ["Entry", "Journal", "Tally", "entries", "files_of", "over_at", "place_of", "read"]

FOLDER: Final = "ledger"
CLOSED: Final = ".closed"
"""In the name of a file whose owner ended in peace: the store, or the outbox, has all of it."""
DAY_MS: Final = 86_400_000
FILE_BYTES: Final = 32 << 20
KEEP_BYTES: Final = 8 << 30
KEEP_MS: Final = 90 * DAY_MS
GRACE_MS: Final = 2 * DAY_MS
"""How long after the end of its counters' periods a sealed file stays: KEEP_MS, or while there is little room this."""
EVER: Final = 2**63
TAIL_BYTES: Final = 4 << 20
MOST_LEFT_OVER: Final = 2_000
SEAL_AFTER_SECONDS: Final = 60.0
RECORDED_MS: Final = 300_000

log = logging.getLogger("tierway.spend")


class Journal:
    """`note` never waits and never fails; `healthy` says whether what is noted reaches the disk."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        file_bytes: int = FILE_BYTES,
        keep_bytes: int = KEEP_BYTES,
        seal_after: float = SEAL_AFTER_SECONDS,
    ) -> None:
        """`folder` is that of all gateways that share a data folder."""
        self.gateway = secrets.token_hex(8)
        self.left_over: Sequence[Entry] = ()
        self._folder = folder
        self._clock = clock
        self._file_bytes = file_bytes
        self._keep_bytes = keep_bytes
        self._seal_after = seal_after
        self._file: OwnedFile | None = None
        self._files = 0
        self._until = 0
        self._appender: Appender[Entry] = Appender(self._write, "journal of spend")
        self._tasks = TaskOwner(lambda name, error: log.error("%s failed: %r", name, error))
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def healthy(self) -> bool:
        return self._appender.healthy

    @property
    def lost(self) -> int:
        """Entries that were given up because the disk took nothing for too long."""
        return self._appender.lost

    async def open(self) -> None:
        """Also where nothing can be written: then it is not `healthy`."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._new_file)
            inherited = await asyncio.to_thread(self._inherit)
            self._tasks.spawn(self._seal_inherited(inherited), "seal-journals")
        except OSError as error:
            self._appender.ail(error.strerror or str(error))
        self._appender.start()

    def note(self, entry: Entry) -> None:
        self._appender.add(entry)

    def flush(self) -> Awaitable[bool]:
        """Whether everything noted so far survives a loss of power; False at once while the disk takes nothing."""
        return self._appender.flush()

    async def aclose(self) -> None:
        await self._tasks.cancel()
        if await self._appender.aclose() and self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close(CLOSED) if self._file.size else self._file.discard()
            self._file = None

    # --- in a thread ------------------------------------------------------------------------------------------------

    def _write(self, batch: Sequence[Entry]) -> None:
        file = self._file or self._new_file()
        try:
            file.append(b"".join(map(encode, batch)))
        except OSError:  # what it wrote of the batch ends in half a line: the next try is a new file
            self._let_go(file)
            raise
        self._until = max(self._until, _until_of(batch))
        if file.size >= self._file_bytes:
            self._let_go(file)
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._seal_soon, file.path, self._until)

    def _new_file(self) -> OwnedFile:
        self._files += 1
        self._until = 0
        self._file = OwnedFile.create(self._folder / f"journal-{self.gateway}-{self._files:06}.jsonl")
        return self._file

    def _let_go(self, file: OwnedFile) -> None:
        self._file = None
        with contextlib.suppress(OSError):
            file.close()

    def _inherit(self) -> list[tuple[Path, int]]:
        """The files of dead processes, locked by us, once their last settlements are read."""
        taken = [(path, take_over(path)) for path in sorted(self._folder.glob("journal-*.jsonl"))]
        inherited = [(path, file) for path, file in taken if file is not None]
        now_ms = int(self._clock.now() * 1000)
        killed = [path for path, _ in inherited if CLOSED not in path.suffixes]
        self.left_over = [entry for path in killed for entry in _last_settlements(path, now_ms)]
        return inherited

    # --- sealing ----------------------------------------------------------------------------------------------------

    def _seal_soon(self, path: Path, until: int) -> None:
        self._tasks.spawn(self._seal(path, until=until), "seal-journal")

    async def _seal(self, path: Path, file: int | None = None, until: int | None = None) -> None:
        now_ms = int(self._clock.now() * 1000)
        try:
            await asyncio.to_thread(seal, path, file, until)
            await asyncio.to_thread(make_room, self._folder, now_ms, self._keep_bytes)
        except OSError as error:
            log.warning("a journal file could not be packed: %s", error.strerror or error)

    async def _seal_inherited(self, inherited: list[tuple[Path, int]]) -> None:
        try:
            await asyncio.sleep(self._seal_after)
            while inherited:
                await self._seal(*inherited.pop())
        finally:
            for _, file in inherited:
                os.close(file)


def _last_settlements(path: Path, now_ms: int) -> Sequence[Entry]:
    """Settling a lease twice does no harm, but what was never held is only known as booked for some minutes."""
    start = max(0, path.stat().st_size - TAIL_BYTES)
    last: deque[Entry] = deque(maxlen=MOST_LEFT_OVER)
    for line in lines_of(path, Tally(), start):
        entry = decode(line)
        if entry is None or entry.op not in (SETTLED, CORRECTED):
            continue
        if entry.final != "recorded" or entry.at_ms > now_ms - RECORDED_MS:
            last.append(entry)
    return last


def seal(path: Path, file: int | None = None, until: int | None = None) -> Path | None:
    """The packed file that stands for `path` now; None when it held nothing, or is not ours to pack. `file` is its lock
    where we have it already, `until` when its counters are over where that is known."""
    file = take_over(path) if file is None else file
    if file is None:
        return None
    try:
        if not os.fstat(file).st_size:
            path.unlink(missing_ok=True)
            return None
        until = _until_of(read(path)) if until is None else until
        sealed = path.with_name(f"{path.stem}.until-{'ever' if until >= EVER else until}.jsonl.gz")
        _pack(path, sealed)
        path.unlink()
        return sealed
    finally:
        os.close(file)


def _until_of(found: Iterable[Entry]) -> int:
    return max((over_at(each, entry.at_ms) for entry in found for each in entry.counters), default=0)


def _pack(path: Path, sealed: Path) -> None:
    fresh = sealed.with_name(f".{sealed.name}")
    with open(path, "rb") as plain, open(fresh, "wb", opener=_private) as packed:
        with gzip.GzipFile("", "wb", 4, packed) as zipped:
            shutil.copyfileobj(plain, zipped, 1 << 20)
        packed.flush()
        os.fsync(packed.fileno())
    fresh.rename(sealed)
    sync_folder(sealed.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def over_at(counter: Counter, at_ms: int) -> int:
    """When a counter that was last changed `at_ms` needs no evidence any more: its period is over, or the store has
    forgotten it."""
    if counter.ends_ms:
        return counter.ends_ms
    return at_ms + counter.keep_ms if counter.keep_ms else EVER


def make_room(folder: Path, now_ms: int, keep_bytes: int = KEEP_BYTES) -> None:
    """Removes sealed files whose counters are over: long ago, or some time ago while all together are too large."""
    sealed = sorted((_until(path), path) for path in folder.glob("journal-*.jsonl.gz"))
    total = sum(path.stat().st_size for _, path in sealed)
    for until, path in sealed:
        if until + KEEP_MS < now_ms or (total > keep_bytes and until + GRACE_MS < now_ms):
            total -= path.stat().st_size
            path.unlink()
    if total > keep_bytes:
        log.warning("the journal takes %d MB: the budgets it is the proof of are not over yet", total >> 20)


def _until(path: Path) -> int:
    said = path.name.partition(".until-")[2].partition(".")[0]
    return int(said) if said.isdecimal() and said.isascii() else EVER


# --- reading ----------------------------------------------------------------------------------------------------------


def place_of(folder: Path) -> Path:
    """Where the files are: the folder itself, or inside of what is a data folder."""
    inside = folder / FOLDER
    return inside if inside.is_dir() else folder


def files_of(folder: Path) -> list[Path]:
    """All journal files there, those that are being written included; `folder` may be the data folder too."""
    place = place_of(folder)
    return sorted([*place.glob("journal-*.jsonl"), *place.glob("journal-*.jsonl.gz")])


def read(path: Path, tally: Tally | None = None) -> Iterator[Entry]:
    """The entries of one file. It may be sealed, or removed, since it was listed."""
    tally = Tally() if tally is None else tally
    try:
        yield from _entries(path, tally)
    except FileNotFoundError:
        for sealed in sorted(path.parent.glob(f"{path.stem}.until-*.jsonl.gz")):
            yield from _entries(sealed, tally)


def _entries(path: Path, tally: Tally) -> Iterator[Entry]:
    for line in lines_of(path, tally):
        entry = decode(line)
        if entry is None:
            tally.foreign += 1
        else:
            tally.entries += 1
            yield entry


def entries(folder: Path, tally: Tally | None = None) -> Iterator[Entry]:
    """Everything that is written in a folder. The same entry may come twice, and order means nothing."""
    for path in files_of(folder):
        yield from read(path, tally)
