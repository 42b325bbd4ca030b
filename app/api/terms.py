"""The `x-tierway-*` and tracing headers of a request, as Terms. A header with a bad value is an error that names it;
one that has no effect here is named in `x-tierway-ignored`, never dropped silently."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, DecimalException
from typing import Final

from app.access.idempotency import HEADER, keepable
from app.api.inbound import Inbound
from app.core.caller import Caller
from app.core.errors import InvalidValue
from app.core.money import NANO_PER_USD
from app.core.request import Terms
from app.core.secret import holds_key
from app.routing.registry import STRATEGIES
from app.sessions.sessions import new_id
from app.telemetry.traceparent import read_tracestate, trace_of

PRIORITIES: Final = ("interactive", "batch")
CONTEXTS: Final = ("error", "truncate")
TRUTHS: Final = {None: None, "true": True, "false": False}
RESUMABLE: Final = b"x-tierway-resumable"  # who makes streams that can be resumed heeds it
DECLINED: Final = (RESUMABLE, False)
NEW: Final = "new"  # asks for a session of a new name
TEXT_MAX: Final = 256
USD_MAX: Final = 1_000_000
TIMEOUT_MAX_SECONDS: Final = 86_400.0
PREFIX: Final = b"x-tierway-"
PREFIX_BYTES: Final = len(PREFIX)
EFFECTIVE: Final = frozenset(
    PREFIX + name
    for name in (
        *(b"strategy", b"timeout", b"agent", b"priority", b"session", b"context"),
        *(b"max-cost", b"session-max-cost", b"continue"),
    )
)
"""What is read here. Any other header of ours, later ones and misspelt ones alike, has no effect, and is named so."""


def read_terms(inbound: Inbound, caller: Caller) -> Terms:
    headers, parent = inbound.headers, inbound.header(b"traceparent")
    terms = Terms(
        request_id=inbound.request_id,
        root_id=inbound.request_id,
        trace_parent=inbound.trace_parent or trace_of(parent).header,
        trace_state=read_tracestate(inbound.header(b"tracestate"), parent) if b"tracestate" in headers else None,
        steps=inbound.steps,
        priority="batch" if caller.priority == "batch" else "interactive",
        local_only=caller.privacy == "local",
    )
    ours = [name for name in headers if name[:PREFIX_BYTES] == PREFIX or name == HEADER]
    return _as_asked(terms, inbound, caller, ours) if ours else terms


def _as_asked(terms: Terms, inbound: Inbound, caller: Caller, ours: list[bytes]) -> Terms:
    timeout = _seconds(inbound, b"x-tierway-timeout")
    session = _text(inbound, b"x-tierway-session")
    asked = _one_of(inbound, b"x-tierway-priority", PRIORITIES)
    resumable = TRUTHS[_one_of(inbound, RESUMABLE, ("true", "false"))]
    return replace(
        terms,
        deadline=None if timeout is None else inbound.started + timeout,
        strategy=_one_of(inbound, b"x-tierway-strategy", STRATEGIES),
        session=new_id() if session == NEW else session,
        agent=_text(inbound, b"x-tierway-agent"),
        priority="batch" if "batch" in (asked, terms.priority) else "interactive",  # a key's word is its most
        max_cost_nano=_usd(inbound, b"x-tierway-max-cost"),
        session_max_cost_nano=_usd(inbound, b"x-tierway-session-max-cost"),
        truncate=_one_of(inbound, b"x-tierway-context", CONTEXTS) == "truncate",
        continues=_one_of(inbound, b"x-tierway-continue", ("true", "false")) == "true",
        resumable=resumable,
        ignored=tuple(
            name.decode("latin-1") for name in ours if _is_ignored(name, caller) and (name, resumable) != DECLINED
        ),
    )


def _is_ignored(name: bytes, caller: Caller) -> bool:
    if name.startswith(PREFIX):
        return name not in EFFECTIVE
    return name == HEADER and not keepable(caller)


def _one_of(inbound: Inbound, name: bytes, values: tuple[str, ...]) -> str | None:
    value = inbound.header(name)
    if value is None or value in values:
        return value
    raise InvalidValue(f"{name.decode()} must be one of {', '.join(values)}.", param=name.decode())


def _text(inbound: Inbound, name: bytes) -> str | None:
    value = inbound.header(name)
    if value is not None and not (0 < len(value) <= TEXT_MAX and value.isprintable()):
        raise InvalidValue(f"{name.decode()} must be 1 to {TEXT_MAX} printable characters.", param=name.decode())
    if value is not None and holds_key(value):
        raise InvalidValue(f"{name.decode()} holds what looks like an API key.", param=name.decode())
    return value


def _usd(inbound: Inbound, name: bytes) -> int | None:
    """Dollars as nano-dollars, rounded down: the limit is the caller's."""
    value = inbound.header(name)
    if value is None:
        return None
    try:
        nano = Decimal(value) * NANO_PER_USD
    except DecimalException:
        nano = Decimal(-1)
    if not (nano.is_finite() and 0 <= nano <= USD_MAX * NANO_PER_USD):
        raise InvalidValue(f"{name.decode()} must be a number of dollars, like 0.05.", param=name.decode())
    return int(nano)


def _seconds(inbound: Inbound, name: bytes) -> float | None:
    value = inbound.header(name)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= TIMEOUT_MAX_SECONDS:
        raise InvalidValue(f"{name.decode()} must be a number of seconds above 0.", param=name.decode())
    return seconds
