"""Settlements that the store did not take, kept in a file of this gateway until it does: they survive a kill.

What is taken is marked done by a line of its own; when nothing is left the file is emptied. Files of dead processes are
taken over at start. Replaying is safe, because a lease is settled once however often it is asked for; who replays, and
when, is the ledger's business.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import orjson

from app.spend.appending import Appender
from app.spend.entries import Entry, decode, encode
from app.spend.lines import OwnedFile, Tally, lines_of, take_over

Step = Entry | str
"""A settlement to keep, or the id of the lease whose settlement was taken."""

PATTERN: Final = "outbox-*.jsonl"

log = logging.getLogger("tierway.spend")


class _Inherited(NamedTuple):
    """An outbox of a dead process; `file` is its lock."""

    path: Path
    file: int
    entries: list[Entry]


class Outbox:
    def __init__(self, folder: Path) -> None:
        """`folder` is that of all gateways that share a data folder."""
        self._folder = folder
        self._path = folder / f"outbox-{secrets.token_hex(8)}.jsonl"
        self._pending: dict[str, Entry] = {}
        self._file: OwnedFile | None = None
        self._on_disk: set[str] = set()
        self._appender: Appender[Step] = Appender(self._write, "outbox of settlements")

    @property
    def healthy(self) -> bool:
        return self._appender.healthy

    async def open(self, left_over: Iterable[Entry] = ()) -> None:
        """Takes over what dead processes left: in their outboxes, and `left_over`, of their journals."""
        self._appender.start()
        inherited: list[_Inherited] = []
        try:
            inherited = await asyncio.to_thread(self._inherit)
        except OSError as error:
            self._appender.ail(error.strerror or str(error))
        for entry in (*left_over, *(entry for each in inherited for entry in each.entries)):
            self._add(entry)
        durable = await self._appender.flush()
        for each in inherited:
            if durable:
                each.path.unlink(missing_ok=True)
            os.close(each.file)
        if self._pending:
            log.info("%d settlements of gateways that ended are settled again", len(self._pending))

    async def put(self, entry: Entry) -> bool:
        """Whether it is on the disk when this returns; it is pending in any case."""
        self._add(entry)
        return await self._appender.flush()

    def pending(self) -> Mapping[str, Entry]:
        """By the id of the lease, oldest first."""
        return MappingProxyType(self._pending)

    def done(self, lease: str) -> None:
        """The store has it now. Should the mark be lost, it is only replayed once more."""
        if self._pending.pop(lease, None) is not None:
            self._appender.add(lease)

    async def aclose(self) -> None:
        if await self._appender.aclose() and self._file is not None:
            self._file.close() if self._on_disk else self._file.discard()
            self._file = None

    def _add(self, entry: Entry) -> None:
        self._pending[entry.lease] = entry
        self._appender.add(entry)

    # --- in a thread ------------------------------------------------------------------------------------------------

    def _inherit(self) -> list[_Inherited]:
        taken = [(path, take_over(path)) for path in sorted(self._folder.glob(PATTERN))]
        return [_Inherited(path, file, open_entries(path)) for path, file in taken if file is not None]

    def _write(self, batch: Sequence[Step]) -> None:
        if self._file is None:
            self._file = OwnedFile.create(self._path)
        self._file.append(b"\n" + b"".join(map(_line, batch)))
        for step in batch:
            if isinstance(step, str):
                self._on_disk.discard(step)
            else:
                self._on_disk.add(step.lease)
        if not self._on_disk:
            self._file.clear()


def _line(step: Step) -> bytes:
    return orjson.dumps({"done": step}) + b"\n" if isinstance(step, str) else encode(step)


def open_entries(path: Path, tally: Tally | None = None) -> list[Entry]:
    """What an outbox still holds."""
    found: dict[str, Entry] = {}
    for line in lines_of(path, Tally() if tally is None else tally):
        entry = decode(line)
        if entry is not None:
            found[entry.lease] = entry
        else:
            found.pop(_done(line), None)
    return list(found.values())


def _done(line: bytes) -> str:
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return ""
    done = said.get("done") if type(said) is dict else None
    return done if type(done) is str else ""


def left_in(folder: Path) -> list[Entry]:
    """What all outboxes of a folder hold, whoever owns them."""
    found: list[Entry] = []
    for path in sorted(folder.glob(PATTERN)):
        try:
            found += open_entries(path)
        except FileNotFoundError:  # emptied and removed just now
            continue
    return found
