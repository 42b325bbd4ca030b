"""What one admission to an upstream asks for and gets: limits on spend, rates, seats, and the lease that comes of it.

Made by those who know the limits (`spend/`, `access/`), checked in one call of the store, put together in `gateway/`.
Money is in nano-dollars, moments are milliseconds since 1970 on the store's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Counter(NamedTuple):
    """What one limit counts in one of its periods. `id` names the limit for people (`key:key_ab12:month`), `key` is the
    name in the store, `limit_nano` None counts without limiting, `ends_ms` 0 is never: the store keeps it `keep_ms`
    after its last change, 0 for ever."""

    id: str
    scope: str  # global | tenant | key | agent | session | request
    period: str  # day | month | total
    key: str
    limit_nano: int | None
    starts_ms: int
    ends_ms: int
    keep_ms: int = 0


class Rate(NamedTuple):
    """So many units a minute, by GCRA: one unit is worth `emission_us`, `burst` may come at once, `cost` are asked for
    now."""

    kind: str  # requests | tokens
    key: str
    emission_us: int
    burst: int
    cost: int


class RateState(NamedTuple):
    """How a rate stands afterwards: `remaining` units at once, full again after `reset_seconds`."""

    kind: str
    limit: int
    remaining: int
    reset_seconds: float


class Seats(NamedTuple):
    """How many requests may run at the same time. `holder` is the request that takes a seat."""

    key: str
    most: int
    holder: str


class CostCell(NamedTuple):
    """One number of the aggregates that grows with a settlement: a field of the hash `key`, which lives `seconds` after
    its last change (0: for ever)."""

    key: str
    field: str
    amount: int
    seconds: int


@dataclass(slots=True)
class Lease:
    """A hold on every counter for one attempt at one upstream. `held_nano` grows when it is extended."""

    id: str
    root_id: str
    model: str
    held_nano: int
    counters: tuple[Counter, ...]
    epoch: str
