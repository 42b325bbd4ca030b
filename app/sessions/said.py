"""What is kept of a conversation, and how it is written down in the store. No I/O.

Each message is an entry of its own, as OpenAI's chat dialect writes it, so that a turn is appended and never rewrites
what was said before. Longer ones are compressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from app.core.errors import InternalError
from app.wire.fields import parse

Json = Mapping[str, Any]

COMPRESSED_FROM: Final = 1_024
COMPRESSED_TO: Final = 65_536  # what is longer holds mostly media, and would take too long
LARGEST: Final = 2**53
UNPACKED_MAX: Final = 1_048_576
DEPTH_MAX: Final = 240  # what is nested deeper cannot be written again
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
    at, by, message = parse(data if data.startswith(b"[") else _unpacked(data), DEPTH_MAX)
    return Said(_message(message), by, _moment(at), data)


def _moment(value: Any) -> float:
    if not abs(value) < LARGEST:  # raises TypeError for what is no number
        raise ValueError("no moment")
    return float(value)


def _count(value: Any) -> int:
    return int(_moment(value))


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data, UNPACKED_MAX)
    if not unpacker.eof:
        raise ValueError("it is cut, or larger than anything that is packed")
    return unpacked


def _message(message: Any) -> Json:
    """As far as others rely on: what a request can bring in was looked at when it came."""
    content, calls = message.get("content"), message.get("tool_calls")
    parts = content if isinstance(content, list) else () if content is None else [content]
    if (
        type(message.get("role")) is not str
        or not all(type(part) in (str, dict) for part in parts)
        or not all(type(call.get("function") or call.get("custom") or {}) is dict for call in calls or ())
    ):
        raise TypeError("no message")
    return cast(Json, message)


def read_kept(about: Sequence[bytes], entries: Sequence[bytes]) -> Kept:
    """What `session_get` found. Raises `InternalError` for what nobody wrote who keeps sessions."""
    try:
        return _kept(about, entries)
    except (ValueError, TypeError, LookupError, AttributeError, zlib.error) as error:
        raise InternalError("A kept session cannot be read.") from error


def _kept(about: Sequence[bytes], entries: Sequence[bytes]) -> Kept:
    fields = dict(zip(about[::2], about[1::2], strict=True))
    if not fields:
        return NOTHING
    rest = parse(fields[b"about"])
    return Kept(
        said=tuple(map(read_said, entries)),
        system=tuple(map(_message, parse(fields[b"system"], DEPTH_MAX))),
        model=rest["model"],
        rollout=rest.get("rollout"),
        hidden=frozenset(map(_count, rest["hidden"])),
        dropped=_count(rest["dropped"]),
        turns=_count(rest["turns"]),
        created_at=_moment(rest["created_at"]),
        updated_at=_moment(rest["updated_at"]),
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
