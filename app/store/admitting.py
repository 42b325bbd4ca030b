"""What the script that admits is asked: many admissions at once, with what all of them count on named only once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import orjson

from app.core.spending import Counter, Lease, Rate, Seats
from app.store import layout
from app.store.link import Value
from app.store.settling import kept_ms
from app.store.together import Places

LEASE: Final = layout.key("lease", "")


class Admission(NamedTuple):
    """`nano` is held for the lease, if there is one, and `note` is JSON for people; lease and seat are due in
    `lease_ms`."""

    lease: Lease | None
    nano: int
    rates: Sequence[Rate]
    seats: Seats | None
    note: bytes
    lease_ms: int


def asked(some: Sequence[Admission], keys: Sequence[str], rest: Sequence[Value]) -> tuple[list[str], list[Value]]:
    """Keys and arguments of `admit.lua`, whose first keys and constant arguments are given."""
    named = list(keys)
    places = Places(named)
    counters: dict[str, int] = {}
    shared: list[Value] = []
    rates: dict[str, int] = {}
    rows: list[Value] = []
    for lease, nano, wanted, seats, note, lease_ms in some:
        if lease is None:
            held: Sequence[Counter] = ()
            rows += (0, "", "", 0, "", "", b"", note)
        else:
            held = lease.counters
            rows += (
                places[LEASE + lease.id],
                lease.id,
                lease.epoch,
                nano,
                lease.root_id,
                lease.model,
                _json(held),
                note,
            )
        rows += (0, 0, "") if seats is None else (places[seats.key], seats.most, seats.holder)
        rows += (len(held), len(wanted), lease_ms)
        for each in held:
            number = counters.get(each.key)
            if number is None:
                number = counters[each.key] = len(counters) + 1
                shared += (places[each.key], each.starts_ms, each.ends_ms, kept_ms(each))
            rows += (number, -1 if each.limit_nano is None else each.limit_nano)
        for rate in wanted:
            number = rates.get(rate.key)
            if number is None:
                number = rates[rate.key] = len(rates) + 1
            rows += (number, rate.emission_us, rate.burst, rate.cost)
    told = [places[key] for key in rates]
    return named, [len(some), len(counters), len(told), *rest, *shared, *told, *rows]


@lru_cache(maxsize=1_024)
def _json(counters: tuple[Counter, ...]) -> bytes:
    """Cached: the counters of a key are the same for all its requests of a day."""
    return orjson.dumps([*map(tuple, counters)])
