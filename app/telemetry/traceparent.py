"""W3C trace context: the `traceparent` that comes in, and the one that goes on to an upstream."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from app.core.entropy import random_bytes
from app.core.secret import holds_key
from app.core.value import value

_HEADER: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED: Final = 0x01
_HEADER_LENGTH: Final = 512
_STATE: Final = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x21-\x2b\x2d-\x3c\x3e-\x7e]{1,256}", re.ASCII)
_STATE_MEMBERS: Final = 32

RandomBytes = Callable[[int], bytes]


@value(frozen=True, slots=True)
class Trace:
    """A place in a trace: ids are lower-case hex."""

    trace_id: str
    span_id: str
    sampled: bool = False

    @property
    def header(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self, random: RandomBytes = random_bytes) -> Trace:
        """The next step of the same trace, whose header goes to an upstream."""
        return replace(self, span_id=_id(random(8)))


def read_traceparent(header: str | None) -> Trace | None:
    """What a `traceparent` header says; None when it is absent or not valid, as the standard wants it ignored."""
    match = _HEADER.fullmatch(header.strip()) if header and len(header) <= _HEADER_LENGTH else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return Trace(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def read_tracestate(header: str | None, traceparent: str | None) -> str | None:
    """What other tracing systems said along the way, to be handed on; None where it is not valid, or not of a trace."""
    if not header or len(header) > _HEADER_LENGTH or read_traceparent(traceparent) is None or holds_key(header):
        return None
    members = [member for each in header.split(",") if (member := each.strip())]
    valid = 0 < len(members) <= _STATE_MEMBERS and all(map(_STATE.fullmatch, members))
    return ",".join(members) if valid else None


def trace_of(header: str | None, random: RandomBytes = random_bytes) -> Trace:
    """Our own step in the trace that `header` names, or in a new one."""
    incoming = read_traceparent(header) if header else None
    if incoming is not None:
        return incoming.child(random)
    ids = random(24)
    return Trace(_id(ids[:16]), _id(ids[16:]))


def _id(data: bytes) -> str:
    return data.hex() if any(data) else "1".rjust(2 * len(data), "0")  # all zeros would mean "no id"
