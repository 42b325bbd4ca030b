"""What is written down of a lease, and how it reads as a line of a file.

An entry holds all that is needed to know what it did to the counters, without the store: the store may be empty when it
is read. It says what is, never by how much something grew: read twice, or in another order, it says the same. Which of
several entries of one lease counts is `rebuild`'s affair; files are `journal`'s and `outbox`'s.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from app.core.spending import CostCell, Counter, Lease

RESERVED: Final = "R"
EXTENDED: Final = "E"
SETTLED: Final = "S"
EXPIRED: Final = "X"
CORRECTED: Final = "C"

FINALS: Final = {SETTLED: "settled", EXPIRED: "expired", CORRECTED: "settled"}
"""The state a lease is in by each of the last words, where the entry does not say."""
OPS: Final = frozenset({RESERVED, EXTENDED, *FINALS})
LARGEST: Final = 2**63 - 1


class Entry(NamedTuple):
    """One step of one lease.

    `held_nano` is its whole hold at that time, also after an extension. `amount_nano` is what it is charged in the end:
    that of S, X and C, also of a correction (not the difference). `final` is settled, released or expired.
    `at_ms` is by the clock of the gateway that wrote it.
    """

    op: str
    lease: str
    amount_nano: int
    held_nano: int
    counters: tuple[Counter, ...]
    epoch: str
    at_ms: int
    final: str = ""
    cells: tuple[CostCell, ...] = ()
    root: str = ""
    model: str = ""

    @property
    def is_last_word(self) -> bool:
        return self.op in FINALS

    def as_lease(self) -> Lease:
        """The lease, so that it can be settled by somebody who did not reserve it."""
        return Lease(self.lease, self.root, self.model, self.held_nano, self.counters, self.epoch)


def entry_of(
    op: str, lease: Lease, at_ms: int, amount_nano: int = 0, final: str = "", cells: Sequence[CostCell] = ()
) -> Entry:
    """What is to be written of a lease as it is now."""
    final = final or FINALS.get(op, "")
    return Entry(
        op,
        lease.id,
        amount_nano,
        lease.held_nano,
        lease.counters,
        lease.epoch,
        at_ms,
        final,
        tuple(cells),
        lease.root_id,
        lease.model,
    )


def encode(entry: Entry) -> bytes:
    """One line, with its end."""
    said = {
        "op": entry.op,
        "id": entry.lease,
        "n": entry.amount_nano,
        "held": entry.held_nano,
        "at": entry.at_ms,
        "epoch": entry.epoch,
        "root": entry.root,
        "model": entry.model,
        "final": entry.final,
        "counters": [tuple(each) for each in entry.counters],
        "cells": [tuple(each) for each in entry.cells],
    }
    try:
        return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a name with half a surrogate in it: what it counts matters more than how it is spelt
        plain = json.dumps(said, ensure_ascii=False).encode(errors="replace")
        return plain + b"\n"


def decode(line: bytes) -> Entry | None:
    """The entry of one line, or None for whatever else stands there."""
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return _entry(said) if type(said) is dict else None


def _entry(said: dict[str, Any]) -> Entry | None:
    try:
        entry = Entry(
            said["op"],
            said["id"],
            said["n"],
            said["held"],
            tuple(Counter(*each) for each in said["counters"]),
            said["epoch"],
            said["at"],
            said["final"],
            tuple(CostCell(*each) for each in said["cells"]),
            said["root"],
            said["model"],
        )
    except (KeyError, TypeError):
        return None
    return entry if _is_sound(entry) else None


def _is_sound(entry: Entry) -> bool:
    texts = (entry.op, entry.lease, entry.epoch, entry.final, entry.root, entry.model)
    numbers = (entry.amount_nano, entry.held_nano, entry.at_ms)
    return (
        all(type(each) is str for each in texts)
        and entry.op in OPS
        and entry.lease != ""
        and all(_counts(each) for each in numbers)
        and all(_is_counter(each) for each in entry.counters)
        and all(_is_cell(each) for each in entry.cells)
    )


def _is_counter(counter: Counter) -> bool:
    texts = (counter.id, counter.scope, counter.period, counter.key)
    limit = counter.limit_nano
    return (
        all(type(each) is str for each in texts)
        and _counts(counter.starts_ms)
        and _counts(counter.ends_ms)
        and _counts(counter.keep_ms)
        and (limit is None or _counts(limit))
    )


def _is_cell(cell: CostCell) -> bool:
    return (
        type(cell.key) is str
        and type(cell.field) is str
        and type(cell.amount) is int
        and abs(cell.amount) <= LARGEST
        and _counts(cell.seconds)
    )


def _counts(number: object) -> bool:
    return type(number) is int and 0 <= number <= LARGEST
