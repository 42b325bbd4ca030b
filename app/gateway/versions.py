"""What operators changed at run time, as numbered versions: each holds all of it, and the last one counts.

A change appends a version where no other was faster, with its entry in the audit list, and reaches every gateway within
two seconds; an earlier version comes back as a new one. What the changes mean is left to those who listen.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.core.clock import Clock
from app.core.errors import NotFound, Overloaded, StoreUnavailable
from app.gateway.audit import OPERATOR, Audit, Entry
from app.store import layout
from app.store.broadcast import Broadcast
from app.store.client import Store

TOPIC: Final = "runtime"
TRIES: Final = 10
KEPT: Final = 100
"""How many versions stay; earlier ones are forgotten."""
FILE_BYTES: Final = 65_536
"""A longer configuration file is not kept, so nobody can go back to it."""

log = logging.getLogger("tierway.versions")


class Kept(BaseModel):
    """A part of a version as the store holds it. What a later release adds is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class FlagChange(Kept):
    """The share of units a flag is on for. `over` is the environment's own value when it was put: where that is
    another by now, the change counts no more; `dropped` says that a gateway which started since found it so."""

    value: Annotated[float, Field(ge=0, le=1)]
    over: Annotated[float, Field(ge=0, le=1)]
    dropped: bool = False


class Filed(Kept):
    """A configuration file: the print by which it is known, and its text, unless that is too long to be kept."""

    print: str
    text: str | None = None

    @classmethod
    def of(cls, data: bytes) -> Filed:
        text = data.decode(errors="replace")
        kept = len(data) <= FILE_BYTES and text.encode() == data
        return cls(print=hashlib.sha256(data).hexdigest()[:12], text=text if kept else None)


class Version(Kept):
    """`flags` are by name, or `name scope who` for some callers only; `settings` by name. `file` is the configuration
    file of that time; `pinned` says by the print of a file which other counts in its place, because an operator went
    back to that."""

    number: int = 0
    at: float = 0.0
    action: str = "start"
    subject: str = ""
    reason: str = ""
    flags: Mapping[str, FlagChange] = {}
    settings: Mapping[str, Any] = {}
    file: Filed | None = None
    pinned: Mapping[str, Filed] = {}


Listener = Callable[[Version], None]
Edit = Callable[[Version], Version]


class Versions:
    """`current` is the last version, number 0 where nothing was changed yet. `listeners` are told of each new one."""

    def __init__(self, store: Store, audit: Audit, clock: Clock) -> None:
        self.current = Version()
        self.listeners: list[Listener] = []
        self._store = store
        self._audit = audit
        self._clock = clock

    def follow(self, broadcast: Broadcast) -> None:
        broadcast.watch(TOPIC, self.refresh)

    async def refresh(self) -> None:
        """Raises `StoreUnavailable`. To be awaited before the first request."""
        self._take(await self._last())

    async def change(self, action: str, subject: str, edit: Edit, reason: str = "", actor: str = OPERATOR) -> Version:
        """Appends what `edit` makes of the last version, or nothing where that is the same. Raises `Overloaded`."""
        for _ in range(TRIES):
            last = await self._last()
            new = edit(last)
            if new == last:
                return self._take(last)
            told = {"number": last.number + 1, "at": self._clock.now(), "action": action, "subject": subject}
            new = new.model_copy(update={**told, "reason": reason})
            entry = Entry(actor, action, subject, reason)
            field = str(new.number)
            if await self._audit.change(layout.RUNTIME, field, None, orjson.dumps(new.model_dump()), TOPIC, entry):
                with contextlib.suppress(StoreUnavailable):  # then the next change forgets one less
                    await self._store.call("HDEL", layout.RUNTIME, str(new.number - KEPT), again=True)
                return self._take(new)
        raise Overloaded("This is being changed by somebody else.", retry_after=1)

    async def list(self, count: int = KEPT) -> list[Version]:
        """The newest first."""
        fields = await self._store.call("HGETALL", layout.RUNTIME, again=True)
        found = [version for text in fields[1::2] if (version := _read(text)) is not None]
        return sorted(found, key=lambda version: version.number, reverse=True)[:count]

    async def get(self, number: int) -> Version:
        """0 is the beginning: nothing changed. Raises `NotFound`."""
        text = await self._store.call("HGET", layout.RUNTIME, str(number), again=True) if number else None
        found = Version() if number == 0 else None if text is None else _read(text)
        if found is None:
            raise NotFound(f"There is no version {number}.", param="n")
        return found

    async def _last(self) -> Version:
        numbers = [int(name) for name in await self._store.call("HKEYS", layout.RUNTIME, again=True) if name.isdigit()]
        if not numbers:
            return Version()
        text = await self._store.call("HGET", layout.RUNTIME, str(max(numbers)), again=True)
        found = None if text is None else _read(text)
        return self.current.model_copy(update={"number": max(numbers)}) if found is None else found

    def _take(self, version: Version) -> Version:
        if version != self.current:
            self.current = version
            for listener in tuple(self.listeners):
                listener(version)
        return version


def _read(text: bytes) -> Version | None:
    try:
        return Version.model_validate_json(text)
    except ValidationError:
        log.error("a version of what was changed at run time cannot be read, so it is passed over")
        return None
