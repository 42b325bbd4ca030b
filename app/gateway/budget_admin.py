"""What an operator does to limits while gateways run: looks at them, changes one, takes a change back; and asks what
money is held for.

A change is a field of a hash in the store, with its entry in the audit list, and reaches every gateway within two
seconds. It wins over the file and the key until it is taken back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.config.problems import nearest
from app.core.caller import Caller
from app.core.clock import Clock
from app.core.errors import NotFound, Overloaded
from app.core.money import usd
from app.gateway.audit import OPERATOR, Audit, Entry
from app.spend.budgets import Budgets, Standing
from app.spend.known import Known
from app.spend.watch import used_of
from app.store import layout
from app.store.broadcast import Broadcast
from app.store.client import Store
from app.store.leases import HeldLease
from app.store.ledger import LedgerStore

TOPIC: Final = "budgets"
TRIES: Final = 5

log = logging.getLogger("tierway.spend")


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit in USD. `configured` is what the file or the key says, null where neither does; `changed` says whether
    `limit` is what an operator put instead."""

    id: str
    limit: float | None
    configured: float | None
    changed: bool


@dataclass(frozen=True, slots=True)
class BudgetState:
    """One limit and what counts on it, in USD. `who` is null where all that match count together. `share` is what is
    used or held of the limit, `forecast` what will be used at the period's end if it goes on as so far. Moments are
    seconds since 1970; null where the period never ends."""

    id: str
    scope: str
    match: str
    who: str | None
    period: str
    time_zone: str
    shared: bool
    limit: float | None
    configured: float | None
    changed: bool
    used: float
    held: float
    remaining: float | None
    share: float | None
    forecast: float | None
    starts_at: float | None
    ends_at: float | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money that one attempt at a model holds until it is settled, on each of these budgets. `expires_at` is when it
    would count as lost; it moves on while its gateway lives."""

    id: str
    root_id: str
    model: str
    held: float
    budgets: tuple[str, ...]
    since: float
    expires_at: float
    about: Mapping[str, Any]


class BudgetAdmin:
    """`callers` are the keys there are."""

    def __init__(
        self,
        store: Store,
        audit: Audit,
        budgets: Budgets,
        ledger: LedgerStore,
        callers: Callable[[], Collection[Caller]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._audit = audit
        self._budgets = budgets
        self._ledger = ledger
        self._known = Known(store)
        self._callers = callers
        self._clock = clock

    def follow(self, broadcast: Broadcast) -> None:
        broadcast.watch(TOPIC, self.refresh)

    async def refresh(self) -> None:
        """Raises `StoreUnavailable`. To be awaited before the first request: until then a lowered limit is unknown."""
        changed = {id: nano for id, text in (await self._fields()).items() if (nano := _nano(id, text)) is not None}
        if changed != self._budgets.changed:
            self._budgets.changed = changed

    async def put(self, id: str, limit_nano: int) -> LimitState:
        """From now on this is the limit. Raises `NotFound`, which names the nearest."""
        self._check(id)
        await self._change(id, b"%d" % limit_nano, "budget.put")
        return self._limit(id)

    async def remove(self, id: str) -> LimitState:
        """What the file or the key says counts again. Raises `NotFound` for what there is neither there nor here."""
        fields = await self._fields()
        if id not in fields:
            self._check(id)
        await self._change(id, None, "budget.delete")
        return self._limit(id)

    async def states(self, scope: str | None = None) -> list[BudgetState]:
        """All limits there are; of agents and sessions those that used something in this period."""
        await self.refresh()
        now = self._clock.now()
        standing = self._budgets.standing(int(now * 1_000), self._callers(), *await self._known.read())
        wanted = [one for one in standing if scope is None or one.limit.scope == scope]
        used = await used_of(self._ledger.used, [one.counter for one in wanted])
        return [
            self._state(one, *used[one.counter.key], now)
            for one in wanted
            if any(used[one.counter.key]) or one.who in (None, one.limit.match) or one.limit.scope in ("tenant", "key")
        ]

    async def reservations(self, most: int) -> list[Reservation]:
        """Those that are due first come first."""
        return [_reservation(lease) for lease in await self._ledger.held(most)]

    def _check(self, id: str) -> None:
        callers = self._callers()
        if self._budgets.limit(id, callers) is None:
            meant = nearest(id, self._budgets.ids(callers))
            raise NotFound(
                f"There is no budget {id[:200]!r}" + (f"; did you mean {meant}?" if meant else "."), param="id"
            )

    async def _change(self, id: str, after: bytes | None, action: str) -> None:
        for _ in range(TRIES):
            before = (await self._fields()).get(id)
            entry = Entry(OPERATOR, action, id, f"{_words(before)} -> {_words(after)}")
            if before == after or await self._audit.change(layout.BUDGETS, id, before, after, TOPIC, entry):
                return await self.refresh()
        raise Overloaded("This budget is being changed by somebody else.", retry_after=1)

    async def _fields(self) -> dict[str, bytes]:
        reply = await self._store.call("HGETALL", layout.BUDGETS, again=True)
        names = (name.decode(errors="replace") for name in reply[::2])
        return dict(zip(names, reply[1::2], strict=True))

    def _limit(self, id: str) -> LimitState:
        limit = self._budgets.limit(id, self._callers())
        configured = None if limit is None else limit.limit_nano
        return LimitState(
            id, _usd(self._budgets.changed.get(id, configured)), _usd(configured), id in self._budgets.changed
        )

    def _state(self, one: Standing, used: int, held: int, now: float) -> BudgetState:
        limit, counter = one.limit, one.counter
        most = counter.limit_nano
        starts, ends = counter.starts_ms / 1_000, counter.ends_ms / 1_000
        return BudgetState(
            limit.id,
            limit.scope,
            limit.match,
            one.who,
            limit.period,
            str(limit.zone),
            limit.shared,
            _usd(most),
            _usd(limit.limit_nano),
            limit.id in self._budgets.changed,
            usd(used),
            usd(held),
            None if most is None else usd(max(0, most - used - held)),
            round((used + held) / most, 6) if most else None,
            round(usd(used) * (ends - starts) / (now - starts), 6) if ends and now > starts else None,
            starts if ends else None,
            ends or None,
        )


def _reservation(lease: HeldLease) -> Reservation:
    return Reservation(
        lease.id,
        lease.root_id,
        lease.model,
        usd(lease.held_nano),
        tuple(counter.id for counter in lease.counters),
        lease.since_ms / 1_000,
        lease.expires_ms / 1_000,
        lease.about,
    )


def _nano(id: str, text: bytes) -> int | None:
    if text.isdigit() and len(text) <= 19:
        return int(text)
    log.error("the limit that was put for %r cannot be read, so what is configured counts", id[:200])
    return None


def _usd(nano: int | None) -> float | None:
    return None if nano is None else usd(nano)


def _words(nano: bytes | None) -> str:
    """A limit for the audit list."""
    return "configured" if nano is None else f"{usd(int(nano)):g} USD" if nano.isdigit() else "unreadable"
