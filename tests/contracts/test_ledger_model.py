"""The scripts against a plain model of what they should do, on a real server: any order of holds, settlements, deaths,
repetitions, turns of day and month, losses of the store, and copies of it that are put back.

The server's clock cannot be moved, so the calendar is: what the machine calls now is the server's time plus `ahead`,
and each period is told to the server by how far it is away from now.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import uvloop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.core.spending import CostCell, Counter, Lease, Rate, Seats
from app.spend.periods import span
from app.store import layout
from app.store.address import Address
from app.store.client import Store
from app.store.ledger import (
    Admitted,
    Denied,
    LedgerStore,
    Limited,
    NoSeat,
    NotDue,
    Replayed,
    Seen,
    Settled,
    SettlingReply,
    WrongEpoch,
    WrongPeriod,
)

T = TypeVar("T")

LONG_MS = 3_600_000
HOUR_US = 3_600_000_000  # so slow that nothing flows back during a test
BURST = 6
SEATS = 1
LIMITS = {"global:day": 100, "key:month": 150, "session:total": 60}
STARTS = (
    datetime(2028, 2, 29, 23, 30, tzinfo=UTC),
    datetime(2026, 12, 31, 22, tzinfo=UTC),
    datetime(2027, 3, 5, tzinfo=UTC),
)
MOVES = (timedelta(minutes=40), timedelta(hours=9), timedelta(days=1), timedelta(days=31))
DAY, EVER = layout.key("costs", "model"), layout.COSTS_TOTAL
READ = {b"hash": ("HGETALL",), b"string": ("GET",), b"zset": ("ZRANGE", 0, -1, "WITHSCORES")}


@dataclass
class Sum:
    limit: int | None
    used: int = 0
    held: int = 0


@dataclass
class Told:
    """What the model knows of a lease."""

    lease: Lease
    held: int
    dies: bool
    state: str = "held"
    charged: int = 0


@dataclass
class Books:
    """What the store should hold."""

    epoch: str | None = None
    sums: dict[str, Sum] = field(default_factory=dict)
    leases: dict[str, Told] = field(default_factory=dict)
    taken: int = 0  # units of the rate
    seats: set[str] = field(default_factory=set)
    requests: int = 0
    cost: int = 0
    acknowledged: int = 0


class Machine(RuleBasedStateMachine):
    socket: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.loop = uvloop.new_event_loop()
        self.store = Store(Address(path=str(self.socket)), timeout=10.0)
        self.do(self.store.open())
        self.do(self.store.call("FLUSHALL"))
        self.ledger = LedgerStore(self.store)
        self.do(self.ledger.make_durable())
        self.books = Books()
        self.lost: list[Told] = []
        self.copied: tuple[Copied, Books] | None = None
        self.forgotten: list[Told] = []
        self.was_whole = True  # before the last settlement
        self.count = 0
        self.exact = True

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    @initialize(start=st.sampled_from(STARTS), full=st.booleans())
    def begins(self, start: datetime, full: bool) -> None:
        """`full`: a lease whose gateway died costs what it held, else nothing."""
        self.full = full
        self.ahead = int(start.timestamp() * 1_000) - self.server_ms()
        assert self.do(self.ledger.begin("e0")) == "e0"
        self.books.epoch = "e0"

    # --- time -------------------------------------------------------------------------------------------------------

    def server_ms(self) -> int:
        seconds, micros = self.do(self.store.call("TIME"))
        return int(seconds) * 1_000 + int(micros) // 1_000

    @rule(by=st.sampled_from(MOVES))
    def time_passes(self, by: timedelta) -> None:
        self.ahead += int(by.total_seconds() * 1_000)

    def counters(self, ago_ms: int = 0) -> tuple[Counter, ...]:
        """As somebody makes them whose clock is that much late."""
        made = []
        for name, limit in (*LIMITS.items(), ("global:all", None)):
            scope, period = name.split(":")
            starts, ends = (0, 0)
            if period in ("day", "month"):
                starts, ends = span(period, UTC, self.server_ms() + self.ahead - ago_ms)
            key = layout.key("spend", f"{name}:{starts}")
            made.append(
                Counter(name, scope, period, key, limit, starts and starts - self.ahead, ends and ends - self.ahead)
            )
        return tuple(made)

    # --- holds ------------------------------------------------------------------------------------------------------

    @rule(nano=st.integers(0, 50), cost=st.integers(0, 3), sits=st.booleans(), dies=st.booleans(), late=st.booleans())
    def admit(self, nano: int, cost: int, sits: bool, dies: bool, late: bool) -> None:
        self.count += 1
        late_by = 32 * 86_400_000 if late and self.count % 4 == 0 else 0
        lease = Lease(f"l{self.count}", "r", "m", nano, self.counters(late_by), self.books.epoch or "e0")
        rates = (Rate("tokens", layout.key("rate", "model"), HOUR_US, BURST, cost),) if cost else ()
        seats = Seats(layout.key("seats", "model"), SEATS, lease.id) if sits and not dies else None
        before = self.dump()
        answer = self.do(self.ledger.admit(lease, rates, seats, lease_ms=0 if dies else LONG_MS))
        expected = self.expected(lease, cost if rates else 0, seats, bool(late_by))
        assert type(answer) is expected, (answer, expected)
        if isinstance(answer, WrongPeriod):
            right = span("day", UTC, answer.now_ms + self.ahead)
            assert right == span("day", UTC, self.server_ms() + self.ahead)
        if isinstance(answer, Denied):
            told = self.books.sums[answer.counter.key]
            assert (answer.used_nano, answer.held_nano) == (told.used, told.held)
        if not isinstance(answer, Admitted):
            assert self.dump() == before, "a refusal leaves no trace"
            return
        for counter in lease.counters:
            self.books.sums.setdefault(counter.key, Sum(counter.limit_nano)).held += nano
        self.books.leases[lease.id] = Told(lease, nano, dies)
        self.books.taken += cost if rates else 0
        if rates:
            assert answer.rates[0].remaining == BURST - self.books.taken
        if seats is not None:
            self.books.seats.add(lease.id)

    def expected(self, lease: Lease, cost: int, seats: Seats | None, late: bool) -> type:
        if self.books.epoch is None or self.older:
            return WrongEpoch
        if seats is not None and len(self.books.seats) >= SEATS:
            return NoSeat
        if self.books.taken + cost > BURST:
            return Limited
        for counter in lease.counters:
            if late and counter.ends_ms:
                return WrongPeriod
            told = self.books.sums.get(counter.key, Sum(counter.limit_nano))
            if told.limit is not None and 0 < lease.held_nano and told.used + told.held + lease.held_nano > told.limit:
                return Denied
        return Admitted

    @precondition(lambda self: self.books.leases)
    @rule(data=st.data())
    def admit_again(self, data: st.DataObject) -> None:
        told = self.one(data)
        seats = Seats(layout.key("seats", "model"), SEATS, told.lease.id)
        rates = (Rate("tokens", layout.key("rate", "model"), HOUR_US, BURST, 2),)
        before = self.dump()
        answer = self.do(self.ledger.admit(told.lease, rates, seats, lease_ms=LONG_MS))
        if self.books.epoch is None:
            assert answer == WrongEpoch("")
        elif self.older:
            assert answer == WrongEpoch(self.books.epoch, older=True)
        else:
            assert isinstance(answer, Replayed)
            assert (answer.state, answer.rates[0].remaining) == (told.state, BURST - self.books.taken)
        assert self.dump() == before

    @precondition(lambda self: self.books.leases)
    @rule(data=st.data(), more=st.integers(1, 60), times=st.integers(1, 2))
    def extend(self, data: st.DataObject, more: int, times: int) -> None:
        told = self.one(data)
        told.lease.held_nano = told.held
        sums = [self.books.sums[counter.key] for counter in told.lease.counters]
        fits = all(each.limit is None or each.used + each.held + more <= each.limit for each in sums)
        expected = Replayed if told.state != "held" else Admitted if fits else Denied
        for _ in range(times):
            assert type(self.do(self.ledger.extend(told.lease, more))) is expected
        if expected is Admitted:
            told.held += more
            for each in sums:
                each.held += more

    # --- ends -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.books.leases)
    @rule(data=st.data(), share=st.integers(0, 100), over=st.integers(0, 20), times=st.integers(1, 2))
    def settle(self, data: st.DataObject, share: int, over: int, times: int) -> None:
        """One in twenty costs more than was held for it."""
        told = self.one(data)
        self.end(told, told.held * share // 100 if over < 20 else told.held + 7, "settled", times)

    @precondition(lambda self: self.books.leases)
    @rule(data=st.data(), times=st.integers(1, 2))
    def release(self, data: st.DataObject, times: int) -> None:
        self.end(self.one(data), 0, "released", times)

    def end(self, told: Told, actual: int, final: str, times: int = 1) -> None:
        before, charged = told.state, told.charged
        cells = self.cells(int(final == "settled"), actual)
        for turn in range(times):
            said = self.ask(told.lease, actual, final, cells)
            if turn or before in ("settled", "released"):
                assert said == Settled(False, told.state)
                continue
            assert said == Settled(True, before, actual - charged, told.held)
            if actual > told.held or (before == "expired" and actual > charged):
                self.exact = False
            self.finish(told, actual, final)
            self.books.requests += int(final == "settled") - int(before == "expired")

    def ask(self, lease: Lease, actual: int | None, final: str, cells: tuple[CostCell, ...]) -> SettlingReply:
        whole = not self.older
        said = self.do(self.ledger.settle(lease, actual, final, cells))
        if isinstance(said, Settled) and said.applied:
            self.was_whole = whole
        return said

    def finish(self, told: Told, actual: int, final: str) -> None:
        self.books.acknowledged += self.was_whole
        assert self.ledger.seen.number >= self.books.acknowledged
        for counter in told.lease.counters:
            each = self.books.sums[counter.key]
            each.held -= told.held if told.state == "held" else 0
            each.used += actual - told.charged
        self.books.cost += actual - told.charged
        told.state, told.charged = final, actual

    @rule()
    def sweep(self) -> None:
        """What a gateway does for the dead, and once more, as a second gateway would."""
        due = {id for id, told in self.books.leases.items() if told.dies and told.state == "held"}
        found = self.do(self.ledger.expired())
        assert {each.id for each in found} == due
        for each in found:
            told = self.books.leases[each.id]
            assert (each.held_nano, each.counters) == (told.held, told.lease.counters)
            charged = told.held if self.full else 0
            for applied in (True, False):
                said = self.ask(each.lease("e0"), charged if not self.full else None, "expired", self.cells(1, charged))
                assert isinstance(said, Settled)
                assert said.applied is applied
            self.finish(told, charged, "expired")
            self.books.requests += 1

    @precondition(lambda self: self.books.leases)
    @rule(data=st.data())
    def expire_too_early(self, data: st.DataObject) -> None:
        told = self.one(data)
        if told.state == "held" and not told.dies:
            assert self.do(self.ledger.settle(told.lease, None, "expired")) == NotDue()

    @precondition(lambda self: self.books.leases)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        told = self.one(data)
        self.do(self.ledger.renew([told.lease], [], LONG_MS))
        told.dies = told.dies and told.state != "held"

    @rule(units=st.integers(1, 4))
    def units_come_back(self, units: int) -> None:
        self.do(self.ledger.hand_back(((Rate("tokens", layout.key("rate", "model"), HOUR_US, BURST, 1), units),)))
        self.books.taken = max(0, self.books.taken - units)

    @precondition(lambda self: self.books.seats)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(sorted(self.books.seats)))
        for _ in range(2):
            self.do(self.ledger.hand_back((), Seats(layout.key("seats", "model"), SEATS, holder)))
        self.books.seats.discard(holder)

    # --- the store's losses -----------------------------------------------------------------------------------------

    @rule(rarely=st.integers(0, 9))
    def the_store_is_emptied(self, rarely: int) -> None:
        if rarely == 0:
            self.do(self.store.call("FLUSHALL"))
            self.lost += self.books.leases.values()
            self.begin_anew()

    def begin_anew(self, acknowledged: int = 0) -> None:
        self.books = Books(acknowledged=acknowledged)
        self.copied = None
        self.forgotten = []

    @property
    def older(self) -> bool:
        return self.ledger.seen.number > self.books.acknowledged

    @precondition(lambda self: self.books.epoch is not None and not self.older)
    @rule()
    def a_copy_is_made(self) -> None:
        self.copied = self.do(copy_of(self.store)), copy.deepcopy(self.books)

    @precondition(lambda self: self.copied is not None and self.books.epoch is not None)
    @rule(rarely=st.booleans())
    def the_copy_is_put_back(self, rarely: bool) -> None:
        if rarely and self.copied is not None:
            copied, then = self.copied
            self.do(put_back(self.store, copied))
            self.forgotten += [told for id, told in self.books.leases.items() if id not in then.leases]
            self.books = copy.deepcopy(then)

    @rule(share=st.integers(0, 100))
    def the_gateway_dies(self, share: int) -> None:
        """Of what was acknowledged to it, the next one knows what was written down."""
        whole, seen = not self.older, self.ledger.seen
        self.ledger.seen = Seen(seen.name, seen.number * share // 100)
        assert not (whole and self.older), "a crash refuses nobody"

    @precondition(lambda self: self.forgotten)
    @rule(data=st.data(), final=st.sampled_from(("settled", "recorded")))
    def settle_what_the_copy_forgot(self, data: st.DataObject, final: str) -> None:
        """Where the gateway knows better it waits, whatever it was."""
        if self.older:
            lease, before = data.draw(st.sampled_from(self.forgotten)).lease, self.dump()
            said = self.do(self.ledger.settle(lease, 5, final, self.cells(1, 5)))
            assert said == WrongEpoch(self.books.epoch or "", older=self.books.epoch is not None)
            assert self.dump() == before

    @precondition(lambda self: self.books.epoch is not None and self.older)
    @rule()
    def an_operator_ends_what_is_old(self) -> None:
        """What is known of the old books says nothing of those that begin."""
        self.lost += [*self.books.leases.values(), *self.forgotten]
        kept = layout.key("acknowledged", self.ledger.seen.name)
        self.do(self.store.call("FLUSHALL"))
        self.do(self.store.call("SET", kept, self.books.acknowledged, "EX", 1_000))
        self.begin_anew(self.books.acknowledged)

    @precondition(lambda self: self.books.epoch is None)
    @rule()
    def an_operator_begins_anew(self) -> None:
        self.books.epoch = f"e{self.count}x"
        assert self.do(self.ledger.begin(self.books.epoch)) == self.books.epoch
        self.ledger.seen = Seen(self.ledger.seen.name)

    @precondition(lambda self: self.lost)
    @rule(data=st.data(), final=st.sampled_from(("settled", "released")))
    def settle_what_is_lost(self, data: st.DataObject, final: str) -> None:
        lease = data.draw(st.sampled_from(self.lost)).lease
        said = self.do(self.ledger.settle(lease, 5, final, self.cells(1, 5)))
        assert said == WrongEpoch(self.books.epoch or "")

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        asked = [Counter("", "", "", key, None, 0, 0) for key in self.books.sums]
        found = self.do(self.ledger.used(asked))
        assert found == [(each.used, each.held) for each in self.books.sums.values()]
        due = {id.encode() for id, told in self.books.leases.items() if told.state == "held"}
        assert set(self.do(self.store.call("ZRANGE", layout.LEASES, 0, -1))) == due
        counted = self.do(self.store.call("GET", layout.key("acknowledged", self.ledger.seen.name)))
        assert int(counted or 0) == self.books.acknowledged
        held = {id: told.held for id, told in self.books.leases.items() if told.state == "held"}
        assert {each.id: each.held_nano for each in self.do(self.ledger.held())} == held

    @invariant()
    def no_limit_is_passed(self) -> None:
        """While nothing costs more than was held for it."""
        if self.exact:
            for each in self.books.sums.values():
                assert each.limit is None or each.used + each.held <= each.limit

    @invariant()
    def each_lease_counts_once(self) -> None:
        requests, cost = self.do(self.store.call("HMGET", DAY, "requests", "cost"))
        assert (int(requests or 0), int(cost or 0)) == (self.books.requests, self.books.cost)
        assert int(self.do(self.store.call("HGET", EVER, "cost")) or 0) == self.books.cost

    def teardown(self) -> None:
        try:
            for told in self.books.leases.values():
                if told.state == "held":
                    self.end(told, told.held // 2, "settled")
            assert all(each.held == 0 for each in self.books.sums.values())
            self.the_store_says_what_the_model_says()
            self.each_lease_counts_once()
        finally:
            self.do(self.store.aclose())
            self.loop.close()

    # --- helpers ----------------------------------------------------------------------------------------------------

    def one(self, data: st.DataObject) -> Told:
        """Rather a late lease than an early one."""
        ids = sorted(self.books.leases, key=lambda id: -int(id[1:]))
        return self.books.leases[data.draw(st.sampled_from(ids))]

    @staticmethod
    def cells(requests: int, cost: int) -> tuple[CostCell, ...]:
        return (
            CostCell(DAY, "requests", requests, 60),
            CostCell(DAY, "cost", cost, 60),
            CostCell(EVER, "cost", cost, 0),
        )

    def dump(self) -> dict[bytes, Any]:
        """Everything that stands in the store."""
        return self.do(self._dump())

    async def _dump(self) -> dict[bytes, Any]:
        keys = await self.store.call("KEYS", "*")
        types = await asyncio.gather(*(self.store.call("TYPE", key) for key in keys))
        commands = [
            (READ[bytes(type, "ascii") if isinstance(type, str) else type], key)
            for type, key in zip(types, keys, strict=True)
        ]
        values = await asyncio.gather(*(self.store.call(name, key, *rest) for (name, *rest), key in commands))
        return dict(zip(keys, values, strict=True))


Copied = list[tuple[bytes, int, bytes]]


async def copy_of(store: Store) -> Copied:
    keys = await store.call("KEYS", "*")
    return [(key, max(0, await store.call("PTTL", key)), await store.call("DUMP", key)) for key in keys]


async def put_back(store: Store, copied: Copied) -> None:
    await store.call("FLUSHALL")
    for key, left_ms, value in copied:
        await store.call("RESTORE", key, left_ms, value)


def test_any_history_leaves_the_books_right(valkey: Path) -> None:
    """A limit that is passed once costs real money; a hold that stays blocks honest requests for ever."""

    class Here(Machine):
        socket = valkey

    run_state_machine_as_test(Here, settings=settings(max_examples=50, stateful_step_count=40, deadline=None))
