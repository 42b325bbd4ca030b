"""A store of money in memory, with the real ledger before it: every hold and every settlement is written down."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import cast

from app.config.schema import BudgetPolicy, BudgetRule
from app.core.caller import Caller
from app.core.clock import ManualClock
from app.core.errors import StoreUnavailable
from app.core.money import Price
from app.core.record import Attempt
from app.core.request import AnyRequest
from app.core.spending import CostCell, Counter, Lease, Rate, RateState, Seats
from app.gateway.admission import Admission
from app.spend.budgets import Budgets
from app.spend.calibration import Calibration
from app.spend.entries import Entry
from app.spend.journal import Journal
from app.spend.ledger import Ledger
from app.spend.outbox import Outbox
from app.store.ledger import (
    EXPIRED,
    HELD,
    RECORDED,
    RELEASED,
    AdmissionReply,
    Admitted,
    Denied,
    ExtensionReply,
    LedgerStore,
    Limited,
    NoSeat,
    Replayed,
    Seen,
    Settled,
    SettlingReply,
    WrongEpoch,
)

EPOCH = "begun-1"
A_NANO_A_TOKEN = Price(0, 1_000, 0, 0, 0)
"""Prompts are free, so that what is held is just as many nano-dollars as tokens may be answered."""


class Bank:
    """Does what the scripts of the store do, one turn of the event loop before and one after. `says` is answered
    instead, first to last. `away` it fails; with `half` only after it did what it was asked for."""

    def __init__(self) -> None:
        self.book = EPOCH
        self.away = False
        self.half = False
        self.says: deque[AdmissionReply] = deque()
        self.used: dict[str, int] = {}
        self.leases: dict[str, tuple[str, int, tuple[Counter, ...]]] = {}
        self.seen = Seen()
        self.held_for: dict[str, int] = {}
        self.final: dict[str, tuple[str, int]] = {}
        self.cells: list[CostCell] = []
        self.spent: dict[str, int] = {}
        self.seats: set[str] = set()
        self.taken: dict[str, int] = {}
        self.calls = 0

    # --- what the ledger calls ----------------------------------------------------------------------------------------

    @property
    def reachable(self) -> bool:
        return self.half or not self.away

    async def books(self) -> WrongEpoch:
        await self._turn()
        return WrongEpoch(self.book)

    async def begin(self, epoch: str) -> str:
        self.book = self.book or epoch
        return self.book

    async def make_durable(self) -> None: ...

    async def admit(
        self,
        lease: Lease | None,
        rates: Sequence[Rate] = (),
        seats: Seats | None = None,
        *,
        lease_ms: int,
        note: bytes = b"",
    ) -> AdmissionReply:
        await self._turn()
        said = self.says.popleft() if self.says else self._admit(lease, rates, seats)
        await self._after()
        return said

    def _admit(self, lease: Lease | None, rates: Sequence[Rate], seats: Seats | None) -> AdmissionReply:
        if lease is not None and (lease.epoch != self.book or not self.book):
            return WrongEpoch(self.book)
        if lease is not None and lease.id in self.final:
            return Replayed(self.final[lease.id][0])
        if seats is not None and len(self.seats) >= seats.most:
            return NoSeat(seats.most)
        for rate in rates:
            if self.taken.get(rate.key, 0) + rate.cost > rate.burst:
                return Limited(self._state(rate), 1.0, tuple(map(self._state, rates)))
        if lease is not None:
            for counter in lease.counters:
                used, held = self.used.get(counter.key, 0), self.held(counter.key)
                if counter.limit_nano is not None and used + held + lease.held_nano > counter.limit_nano:
                    return Denied(counter, used, held)
            self.leases[lease.id] = (HELD, lease.held_nano, lease.counters)
            self.held_for[lease.id] = lease.held_nano
        for rate in rates:
            self.taken[rate.key] = self.taken.get(rate.key, 0) + rate.cost
        if seats is not None:
            self.seats.add(seats.holder)
        return Admitted(tuple(map(self._state, rates)))

    def _state(self, rate: Rate) -> RateState:
        return RateState(rate.kind, rate.burst, rate.burst - self.taken.get(rate.key, 0), 1.0)

    async def extend(self, lease: Lease, more_nano: int) -> ExtensionReply:
        await self._turn()
        state, amount, counters = self.leases[lease.id]
        for counter in counters:
            used, held = self.used.get(counter.key, 0), self.held(counter.key)
            if counter.limit_nano is not None and used + held + more_nano > counter.limit_nano:
                return Denied(counter, used, held)
        self.leases[lease.id] = (state, amount + more_nano, counters)
        self.held_for[lease.id] = amount + more_nano
        await self._after()
        return Admitted()

    async def settle(
        self, lease: Lease, actual_nano: int | None, final: str, cells: Sequence[CostCell] = ()
    ) -> SettlingReply:
        await self._turn()
        said = self._settle(lease, actual_nano or 0, final, cells)
        await self._after()
        return said

    def _settle(self, lease: Lease, actual: int, final: str, cells: Sequence[CostCell]) -> SettlingReply:
        if lease.id in self.final:
            return Settled(False, self.final[lease.id][0])
        known = self.leases.pop(lease.id, None)
        if known is None and final != RECORDED:
            if final == RELEASED:
                self.final[lease.id] = (final, 0)
            return Settled(False, "")
        self.final[lease.id] = (final, actual)
        self.spent[lease.id] = actual
        for counter in lease.counters:
            self.used[counter.key] = self.used.get(counter.key, 0) + actual
        self.cells += cells
        return Settled(True, HELD if known is not None else "", actual, 0 if known is None else known[1])

    async def hand_back(self, rates: Sequence[tuple[Rate, int]] = (), seats: Seats | None = None) -> None:
        await self._turn()
        for rate, units in rates:
            self.taken[rate.key] = max(0, self.taken.get(rate.key, 0) - units)
        if seats is not None:
            self.seats.discard(seats.holder)
        await self._after()

    async def renew(self, leases: Sequence[Lease], seats: Sequence[Seats], lease_ms: int) -> None: ...

    async def expired(self, most: int = 100) -> list[object]:
        return []

    async def _turn(self) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.away and not self.half:
            raise StoreUnavailable("away")

    async def _after(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")

    # --- what tests ask -----------------------------------------------------------------------------------------------

    def held(self, key: str) -> int:
        return sum(amount for _, amount, counters in self.leases.values() if any(each.key == key for each in counters))

    @property
    def holds(self) -> list[int]:
        """What was held for each attempt, first to last."""
        return list(self.held_for.values())

    @property
    def charges(self) -> list[int]:
        return [self.spent[id] for id in self.held_for if id in self.spent]

    @property
    def finals(self) -> list[str]:
        return [final for final, _ in self.final.values()]

    @property
    def is_at_rest(self) -> bool:
        """Nothing is held, and every hold has one end."""
        return (
            not self.leases
            and not self.seats
            and self.held_for.keys() <= self.final.keys()
            and EXPIRED not in self.finals
        )


class Drawer:
    """An outbox in memory; and a journal that is not looked at."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def note(self, entry: Entry) -> None: ...

    async def flush(self) -> bool:
        await asyncio.sleep(0)
        return True

    async def put(self, entry: Entry) -> bool:
        self.entries[entry.lease] = entry
        await asyncio.sleep(0)
        return True

    def pending(self) -> Mapping[str, Entry]:
        return MappingProxyType(self.entries)

    def done(self, lease: str) -> None:
        self.entries.pop(lease, None)


class Till:
    """An admission over a bank, with everything it told. `limit` is that of a day, in nano-dollars."""

    def __init__(self, limit: int | None = None, *, clock: ManualClock | None = None, lower: bool = False) -> None:
        rules = [] if limit is None else [BudgetRule.model_validate({"scope": "global", "period": "day", "limit": 1})]
        self.bank = Bank()
        self.outbox = Drawer()
        self.clock = clock or ManualClock()
        self.guard = True
        self.refusals: list[tuple[str, int | None]] = []
        self.budgets = Budgets(rules, BudgetPolicy())
        if limit is not None:
            self.budgets.changed = {"global:*:day": limit}
        self.ledger = Ledger(
            cast(LedgerStore, self.bank),
            self.clock,
            cast(Journal, self.outbox),
            cast(Outbox, self.outbox),
            on_crash="full",
            over_reserved=lambda nano: None,
            alert=lambda counters: None,
        )
        self.ledger.agreement.epoch = EPOCH
        self.admission = self.admitting(lower=lower)

    def admitting(self, calibration: Calibration | None = None, *, lower: bool = False) -> Admission:
        return Admission(
            self.ledger, self.budgets, calibration, self.clock, self._guarded, self._denied, self._cells, lower=lower
        )

    def _guarded(self, request: AnyRequest, caller: Caller) -> bool:
        return self.guard

    def _denied(self, scope: str, counter: Counter | None) -> None:
        self.refusals.append((scope, None if counter is None else counter.limit_nano))

    def _cells(
        self, attempt: Attempt, key_id: str | None, tenant: str | None, agent: str | None, *, stands_in: bool = False
    ) -> tuple[CostCell, ...]:
        name = "|".join((attempt.model, key_id or "", tenant or "", agent or "", "instead" if stands_in else ""))
        return (CostCell("costs", name, attempt.cost_nano or 0, 0),)

    async def healed(self) -> None:
        """The store is back, and the ledger has brought there what waited."""
        self.bank.away = self.bank.half = False
        await self.ledger.tend()
