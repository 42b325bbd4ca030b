"""Changes that an operator or the gateway itself makes to what all replicas share: each with an entry that says who and
why, or not at all. The list only grows, at its newer end, and forgets what is old."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Final

import orjson

from app.core.clock import Clock
from app.store import layout
from app.store.client import Store
from app.store.scripts import load
from app.wire.fields import parse

KEPT: Final = 10_000
OPERATOR: Final = "admin"
GATEWAY: Final = "tierway"

AUDITED: Final = load("audited")


@dataclass(frozen=True, slots=True)
class Entry:
    """`actor` is `admin`, `file` or `tierway`; `action` and `subject` say what was done to what."""

    actor: str
    action: str
    subject: str
    reason: str = ""


class Audit:
    """The one way to change a field of a shared hash."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def change(
        self, key: str, field: str, before: bytes | None, after: bytes | None, topic: str, entry: Entry
    ) -> bool:
        """Puts `after` (None deletes) where `before` still stands, and tells every gateway that follows the topic.
        False when somebody else was faster."""
        line = {
            "at": self._clock.now(),
            "actor": entry.actor,
            "action": entry.action,
            "subject": entry.subject,
            "reason": entry.reason,
        }
        seconds = layout.PARTITIONS["audit"].seconds or 0
        done = await self._store.run(
            AUDITED,
            (key, layout.AUDIT, layout.VERSIONS),
            (field, before or b"", after or b"", orjson.dumps(line), KEPT, seconds, topic, layout.CHANGES),
        )
        return bool(done)

    async def entries(self, count: int = 100) -> list[dict[str, Any]]:
        """The newest entries first."""
        lines = await self._store.call("LRANGE", layout.AUDIT, 0, count - 1, again=True)
        found: list[dict[str, Any]] = []
        for line in lines:
            with contextlib.suppress(ValueError):
                entry = parse(line)
                if isinstance(entry, dict):
                    found.append(entry)
        return found
