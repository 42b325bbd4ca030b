"""A reply as data: the steps that a connection plays in order.

Faces write scripts, faults bend them, `http` plays them. Because a whole reply is known before its first byte goes out,
a fault is a pure function from script to script and can break a reply at any byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

Headers = tuple[tuple[str, str], ...]
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and headers. `length` None: the body is sent in chunks, and its end is said by an empty one."""

    status: int
    content_type: str
    headers: Headers = ()
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing happens for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing happens any more, until the client leaves."""


@dataclass(frozen=True, slots=True)
class Break:
    """The connection ends here, whatever was promised: closed in order, or `reset` as by a crash."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """The reply goes on once the server has a free place, and keeps that place until it is over."""


Step = bytes | Head | Wait | Hang | Break | Queue
Script = tuple[Step, ...]


def whole(status: int, body: bytes, content_type: str = JSON, headers: Headers = ()) -> Script:
    """A reply whose length is known."""
    return (Head(status, content_type, headers, len(body)), body) if body else (Head(status, content_type, headers, 0),)


def json_reply(value: Any, status: int = 200, headers: Headers = ()) -> Script:
    return whole(status, orjson.dumps(value), headers=headers)


def streamed(content_type: str, pieces: Iterable[Step], headers: Headers = ()) -> Script:
    """A reply sent in chunks."""
    return (Head(200, content_type, headers), *pieces)


def head_of(script: Script) -> Head | None:
    return next((step for step in script if isinstance(step, Head)), None)


def body_of(script: Script) -> bytes:
    """All bytes of the body."""
    return b"".join(step for step in script if isinstance(step, bytes))
