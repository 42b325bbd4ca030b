"""What the journals say the counters should hold, and where a store says otherwise. Pure: entries in, numbers out.

Every lease counts once, by its last word: settled beats expired, expired beats held. The order of entries does not
matter, nor how often one comes. Which epochs count is said by `epochs`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from app.core.spending import Counter
from app.spend.entries import CORRECTED, EXPIRED, EXTENDED, RESERVED, SETTLED, Entry
from app.spend.epochs import that_count
from app.spend.journal import over_at

RANK: Final = {RESERVED: 0, EXTENDED: 0, EXPIRED: 1, SETTLED: 2, CORRECTED: 3}


class Books:
    """The last word on each lease."""

    def __init__(self, *, with_cells: bool = False) -> None:
        self.leases: dict[str, Entry] = {}
        self._with_cells = with_cells
        self._counters: dict[tuple[Counter, ...], tuple[Counter, ...]] = {}

    def add(self, entry: Entry) -> None:
        known = self.leases.get(entry.lease)
        if known is None or _weight(entry) > _weight(known):
            shared = self._counters.setdefault(entry.counters, entry.counters)
            self.leases[entry.lease] = entry._replace(counters=shared, cells=entry.cells if self._with_cells else ())

    def of_epoch(self, current: str) -> Mapping[str, Entry]:
        """Those leases whose spend a store in this epoch should know of."""
        count = that_count(((entry.at_ms, entry.epoch) for entry in self.leases.values()), current)
        return {id: entry for id, entry in self.leases.items() if entry.epoch in count}


def books_of(entries: Iterable[Entry], *, with_cells: bool = False) -> Books:
    books = Books(with_cells=with_cells)
    for entry in entries:
        books.add(entry)
    return books


def _weight(entry: Entry) -> tuple[int, int, int]:
    """Of two settlements the first was taken. Of two holds, or expiries, the larger: holds only grow."""
    rank = RANK[entry.op]
    return rank, -entry.at_ms if rank >= RANK[SETTLED] else entry.held_nano, entry.amount_nano


def charge_of(entry: Entry, on_crash: str) -> int:
    """What a lease costs in the end, if nobody says more about it. `on_crash` is full or release."""
    if entry.is_last_word:
        return entry.amount_nano
    return entry.held_nano if on_crash == "full" else 0


class Expected(NamedTuple):
    """What a counter has used at least and at most, and when it may be forgotten."""

    counter: Counter
    low: int
    high: int
    over_ms: int


def expected(leases: Mapping[str, Entry], on_crash: str) -> dict[str, Expected]:
    """By the counters' keys, when nothing is open: a lease without a last word ended in a crash."""
    return _sums(leases.values(), lambda entry: (charge_of(entry, on_crash),) * 2)


def _sums(leases: Iterable[Entry], charged: Callable[[Entry], tuple[int, int]]) -> dict[str, Expected]:
    found: dict[str, Expected] = {}
    for entry in leases:
        low, high = charged(entry)
        for counter in entry.counters:
            over_ms = over_at(counter, entry.at_ms)
            known = found.get(counter.key, Expected(counter, 0, 0, 0))
            found[counter.key] = Expected(counter, known.low + low, known.high + high, max(known.over_ms, over_ms))
    return found


class Correctable(NamedTuple):
    """A lease that nobody settled: who does so late corrects what is charged for it now."""

    entry: Entry
    charged_nano: int


def correctable(leases: Mapping[str, Entry], on_crash: str) -> list[Correctable]:
    unsettled = (entry for entry in leases.values() if RANK[entry.op] < RANK[SETTLED])
    return [Correctable(entry, charge_of(entry, on_crash)) for entry in unsettled]


@dataclass(slots=True)
class Costs:
    """Numbers of one key of the cost aggregates; `over_ms`: when it may be forgotten, 0 never."""

    fields: dict[str, int]
    over_ms: int = 0


def costs_of(leases: Mapping[str, Entry]) -> dict[str, Costs]:
    """By their keys; of entries that were read with their cells."""
    found: dict[str, Costs] = {}
    for entry in leases.values():
        for cell in entry.cells if entry.is_last_word else ():
            costs = found.setdefault(cell.key, Costs({}))
            costs.fields[cell.field] = costs.fields.get(cell.field, 0) + cell.amount
            if cell.seconds:
                costs.over_ms = max(costs.over_ms, entry.at_ms + cell.seconds * 1000)
    return found


# --- comparing with a store that is being used ------------------------------------------------------------------------


class Kept(NamedTuple):
    """What the store says of a counter. `ending`: its period is over, or it has no end and is soon forgotten."""

    used_nano: int
    held_nano: int
    ending: bool


class Open(NamedTuple):
    """What the store says of an open lease."""

    held_nano: int
    keys: tuple[str, ...]


class Look(NamedTuple):
    """One look at a store that does not stand still: the counters, read between two readings of the open leases.
    `waiting` are leases whose settlement waits in an outbox."""

    now_ms: int
    counters: Mapping[str, Kept]
    open_before: Mapping[str, Open]
    open_after: Mapping[str, Open]
    waiting: Collection[str] = ()


class Difference(NamedTuple):
    """A counter that holds neither what it should nor anything between (`low`, `high`: what was settled while we
    looked may be in it or not)."""

    key: str
    id: str
    what: str  # used | held
    low: int
    high: int
    found: int


def differences(before: Mapping[str, Entry], after: Mapping[str, Entry], look: Look, on_crash: str) -> list[Difference]:
    """`before` and `after` are what the journals said before and after the look. Counters that are over are left out:
    nobody is bound by them, and their evidence may be gone."""
    used = _sums(after.values(), lambda entry: _charged_between(before.get(entry.lease), entry, look, on_crash))
    held = _held_between(before, after, look)
    found: list[Difference] = []
    for key in sorted({*used, *held, *look.counters}):
        kept, sums = look.counters.get(key), used.get(key)
        if _is_past(sums, kept, look.now_ms):
            continue
        spans = {"used": (sums.low, sums.high) if sums else (0, 0), "held": held.get(key, (0, 0))}
        values = {"used": kept.used_nano if kept else 0, "held": kept.held_nano if kept else 0}
        id = sums.counter.id if sums else ""
        found += [
            Difference(key, id, what, low, high, values[what])
            for what, (low, high) in spans.items()
            if not low <= values[what] <= high
        ]
    return found


MARGIN_MS: Final = 60_000
FORGOTTEN_MS: Final = 3_600_000
"""How much sooner than its lease's last entry says the store may forget a counter without an end."""


def _is_past(sums: Expected | None, kept: Kept | None, now_ms: int) -> bool:
    if sums is None:
        return kept is None or kept.ending
    return sums.over_ms <= now_ms + (MARGIN_MS if kept is not None else FORGOTTEN_MS)


def _charged_between(before: Entry | None, after: Entry, look: Look, on_crash: str) -> tuple[int, int]:
    """What the store may have charged for a lease when it was looked at."""
    id = after.lease
    if not after.is_last_word and (id in look.open_before or id in look.open_after):
        return 0, 0
    charge = charge_of(after, on_crash)
    if id in look.waiting or id in look.open_before or id in look.open_after:
        return 0, max(charge, after.held_nano)
    if before == after:
        return charge, charge
    earlier = before.amount_nano if before is not None and before.is_last_word else 0
    return min(earlier, charge), max(earlier, charge, after.held_nano)


def _held_between(before: Mapping[str, Entry], after: Mapping[str, Entry], look: Look) -> dict[str, tuple[int, int]]:
    """A lease that came and went between the two readings of the open ones is in neither, and may have been in the
    counters all the same; one that ended meanwhile may have grown before."""
    found: dict[str, tuple[int, int]] = {}
    moved = {id: entry for id, entry in after.items() if _moved(before.get(id), entry)}
    for id in {*look.open_before, *look.open_after, *moved}:
        first, second, entry = look.open_before.get(id), look.open_after.get(id), moved.get(id)
        amounts = [0 if each is None else each.held_nano for each in (first, second)]
        lease = first or second
        keys = lease.keys if lease is not None else tuple(counter.key for counter in moved[id].counters)
        grown = 0 if entry is None else entry.held_nano
        for key in keys:
            least, most = found.get(key, (0, 0))
            found[key] = least + min(amounts), most + max(*amounts, grown)
    return found


def _moved(before: Entry | None, after: Entry) -> bool:
    """Whether it may have been open between the two; a settlement is written down before the store knows of it."""
    return before != after and (before is None or not before.is_last_word)
