"""What is kept of a conversation, and how it is written down in the store. No I/O.

Each message is an entry of its own, as OpenAI's chat dialect writes it, so that a turn is appended and never rewrites
what was said before. Longer ones are compressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

Json = Mapping[str, Any]

COMPRESSED_FROM: Final = 1_024
COMPRESSED_TO: Final = 65_536  # what is longer holds mostly media, and would take too long
PIECES_MAX: Final = 4_000  # messages and parts of one session: what a request may hold, with room for the next turn


@dataclass(frozen=True, slots=True)
class Said:
    """One message. `by` is the full id of the model that answered with it, None for what the client sent; `data` is
    how it is written down."""

    message: Json
    by: str | None
    at: float  # seconds since 1970, UTC
    data: bytes

    @property
    def pieces(self) -> int:
        content = self.message.get("content")
        return 1 + (len(content) if isinstance(content, list) else 0)


@dataclass(frozen=True, slots=True)
class Kept:
    """A session as it stands. `model` answered last, as the treatment of `rollout` if that says so; `hidden` are places
    of messages that no longer go to a model; `dropped` counts those that are gone for good, because the session grew
    too large. `born` and `version` tell the store which session, and which state of it, this was read from; both empty
    where there is none."""

    said: tuple[Said, ...] = ()
    system: tuple[Json, ...] = ()
    model: str | None = None
    hidden: frozenset[int] = frozenset()
    dropped: int = 0
    turns: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    born: str = ""
    version: str = ""
    rollout: str | None = None

    @property
    def messages(self) -> list[Json]:
        return [each.message for each in self.said]


NOTHING: Final = Kept()


def said(message: Json, by: str | None, at: float) -> Said:
    data = orjson.dumps([at, by, message])
    if COMPRESSED_FROM <= len(data) <= COMPRESSED_TO:
        data = zlib.compress(data, 1)
    return Said(message, by, at, data)


def read_said(data: bytes) -> Said:
    at, by, message = orjson.loads(data if data.startswith(b"[") else zlib.decompress(data))
    return Said(message, by, at, data)


def read_kept(about: Sequence[bytes], entries: Sequence[bytes]) -> Kept:
    """What `session_get` found."""
    fields = dict(zip(about[::2], about[1::2], strict=True))
    if not fields:
        return NOTHING
    rest = orjson.loads(fields[b"about"])
    return Kept(
        said=tuple(map(read_said, entries)),
        system=tuple(orjson.loads(fields[b"system"])),
        model=rest["model"],
        rollout=rest.get("rollout"),
        hidden=frozenset(rest["hidden"]),
        dropped=rest["dropped"],
        turns=rest["turns"],
        created_at=rest["created_at"],
        updated_at=rest["updated_at"],
        born=fields[b"born"].decode(),
        version=fields[b"version"].decode(),
    )


def write_fields(kept: Kept) -> tuple[str | bytes, ...]:
    """The fields that a turn sets, one after the other with its value."""
    about = {
        "model": kept.model,
        "rollout": kept.rollout,
        "hidden": sorted(kept.hidden),
        "dropped": kept.dropped,
        "turns": kept.turns,
        "created_at": kept.created_at,
        "updated_at": kept.updated_at,
    }
    return "system", orjson.dumps(kept.system), "about", orjson.dumps(about)
