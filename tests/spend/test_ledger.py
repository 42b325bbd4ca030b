from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.clock import ManualClock
from app.core.errors import BudgetStoreUnavailable, StoreUnavailable
from app.core.spending import CostCell, Counter, Lease, Rate, Seats
from app.core.tasks import TaskOwner
from app.spend.entries import SETTLED, Entry, entry_of
from app.spend.journal import Journal, entries
from app.spend.ledger import MOST_RECORDS, Ledger
from app.spend.outbox import Outbox
from app.spend.remembered import Remembered
from app.store import layout
from app.store.address import Address
from app.store.client import Store
from app.store.folder import find_server
from app.store.leases import HeldLease
from app.store.ledger import MOST_NANO, Admitted, Denied, LedgerStore, Limited, Replayed, Settled, SettlingReply
from tests.store.live import eventually, ok, puppet, until

LEASE_MS = 60_000
TOTAL = Counter("global:*:total", "global", "total", layout.key("spend", "g"), 100, 0, 0)
RATE = Rate("requests", layout.key("rate", "k"), 1_000_000, 10, 4)
CHAIR = Seats(layout.key("seats", "k"), 1, "r1")


class Gateway:
    """One gateway's ledger with its journal and outbox, and what it told."""

    def __init__(self, folder: Path, calls: LedgerStore, on_crash: str = "full", lease_ms: int = LEASE_MS) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.over: list[int] = []
        self.alerts: list[Sequence[Counter]] = []
        self.calls = calls
        self.journal = Journal(folder, self.clock)
        self.outbox = Outbox(folder)
        self.ledger = Ledger(
            self.calls,
            self.clock,
            self.journal,
            self.outbox,
            on_crash="full" if on_crash == "full" else "release",
            over_reserved=self.over.append,
            alert=self.alerts.append,
            lease_ms=lease_ms,
        )

    def lease(self, id: str = "l1", nano: int = 40, counter: Counter = TOTAL) -> Lease:
        return Lease(id, "root", "claude/x", nano, (counter,), self.ledger.epoch)

    async def used(self) -> tuple[int, int]:
        return (await self.ledger.used((TOTAL,)))[0]

    async def written(self) -> list[tuple[str, str, int]]:
        await self.journal.flush()
        return [(entry.op, entry.lease, entry.amount_nano) for entry in entries(self.folder)]


@contextlib.asynccontextmanager
async def gateway(
    store: Store,
    folder: Path,
    on_crash: str = "full",
    lease_ms: int = LEASE_MS,
    calls: LedgerStore | None = None,
) -> AsyncIterator[Gateway]:
    made = Gateway(folder, calls or LedgerStore(store), on_crash, lease_ms)
    await made.journal.open()
    await made.outbox.open(made.journal.left_over)
    await made.ledger.open(Remembered(folder))
    try:
        yield made
    finally:
        await made.outbox.aclose()
        await made.journal.aclose()


@pytest.fixture
async def one(store: Store, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(store, tmp_path) as made:
        yield made


# --- one attempt ------------------------------------------------------------------------------------------------------


async def test_what_is_spent_is_held_booked_and_written_down(one: Gateway) -> None:
    lease = one.lease()
    assert await one.ledger.admit(lease, note=b"{}") == Admitted()
    assert one.ledger.open_leases == {"l1": lease}
    assert [each.id for each in await one.ledger.held()] == ["l1"]
    assert await one.ledger.extend(lease, 10)
    assert (lease.held_nano, await one.used()) == (50, (0, 50))
    await one.ledger.settle(lease, 45)
    assert await one.used() == (45, 0)
    assert one.ledger.open_leases == {}
    assert await one.written() == [("R", "l1", 0), ("E", "l1", 0), ("S", "l1", 45)]
    assert one.alerts == [[TOTAL]]


async def test_what_does_not_fit_is_not_held_and_is_told(one: Gateway) -> None:
    assert await one.ledger.admit(one.lease(nano=101)) == Denied(TOTAL, 0, 0)
    assert one.ledger.open_leases == {}
    assert one.alerts == [(TOTAL,)]
    await one.ledger.admit(one.lease(nano=100))
    assert not await one.ledger.extend(one.lease(nano=100), 1)
    assert not await one.ledger.extend(one.lease("unknown"), 1)
    assert one.alerts == [(TOTAL,), (TOTAL,)]
    assert await one.written() == [("R", "l1", 0)]


async def test_an_answer_dearer_than_its_hold_is_booked_and_reported(one: Gateway) -> None:
    await one.ledger.admit(one.lease())
    await one.ledger.settle(one.lease(), 47)
    assert await one.used() == (47, 0)
    assert one.over == [7]


async def test_the_journal_says_what_the_store_says_of_absurd_amounts(one: Gateway) -> None:
    free = TOTAL._replace(limit_nano=None)
    lease = one.lease(nano=10**30, counter=free)
    await one.ledger.admit(lease)
    assert await one.ledger.extend(lease, 10**30)
    await one.ledger.settle(lease, 10**30)
    assert await one.used() == (MOST_NANO, 0)
    assert await one.written() == [("R", "l1", 0), ("E", "l1", 0), ("S", "l1", MOST_NANO)]


async def test_a_limitless_counter_alerts_nobody(one: Gateway) -> None:
    free = TOTAL._replace(limit_nano=None)
    await one.ledger.admit(one.lease(counter=free))
    await one.ledger.settle(one.lease(counter=free), 5)
    assert one.alerts == []


async def test_an_admission_that_the_client_of_the_store_repeated_is_one(one: Gateway) -> None:
    await one.calls.admit(one.lease(), lease_ms=LEASE_MS)
    assert await one.ledger.admit(one.lease()) == Admitted()
    await one.ledger.settle(one.lease(), 1)
    assert await one.ledger.admit(one.lease()) == Replayed("settled")


async def test_a_refusal_for_rate_takes_nothing(one: Gateway) -> None:
    answer = await one.ledger.admit(one.lease(), (RATE._replace(cost=11),), CHAIR)
    assert isinstance(answer, Limited)
    assert one.ledger.open_leases == {}
    assert await one.used() == (0, 0)


async def test_seats_and_units_are_given_back(one: Gateway, store: Store) -> None:
    await one.ledger.admit(None, (RATE,), CHAIR)
    await one.ledger.hand_back(((RATE, 4),), CHAIR)
    assert await store.call("EXISTS", RATE.key, CHAIR.key) == 0


async def test_a_free_answer_is_recorded_without_a_hold(one: Gateway, store: Store) -> None:
    cell = CostCell(layout.key("costs", "d"), "requests", 1, 60)
    for _ in range(2):
        await one.ledger.settle(one.lease(nano=0), 0, "recorded", (cell,))
    assert await store.call("HGET", cell.key, "requests") == b"1"


async def test_a_settlement_is_on_the_disk_before_it_is_in_the_store(store: Store, tmp_path: Path) -> None:
    """A gateway that is killed in between must not leave spend that no journal can prove."""
    seen: list[list[tuple[str, str]]] = []

    class Calls(LedgerStore):
        async def settle(
            self, lease: Lease, actual_nano: int | None, final: str, cells: Sequence[CostCell] = ()
        ) -> SettlingReply:
            seen.append([(entry.op, entry.lease) for entry in entries(tmp_path)])
            return await super().settle(lease, actual_nano, final, cells)

    async with gateway(store, tmp_path, lease_ms=0, calls=Calls(store)) as one:
        await one.ledger.admit(one.lease())
        await one.ledger.settle(one.lease(), 25)
        assert seen.pop() == [("R", "l1"), ("S", "l1")]
        await one.ledger.admit(one.lease("l2"))
        await one.ledger.tend()
        assert seen.pop()[-1] == ("X", "l2")


# --- what dies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_crash", "charged"), [("full", 40), ("release", 0)])
async def test_the_dead_are_settled_by_any_gateway_and_corrected_once(
    store: Store, tmp_path: Path, on_crash: str, charged: int
) -> None:
    """A gateway that was killed must not block others for ever; one that was only slow still counts what it really
    spent."""
    asked: list[tuple[str, int]] = []

    def cells_of(lease: HeldLease, nano: int) -> Sequence[CostCell]:
        asked.append((lease.id, nano))
        return (CostCell(layout.COSTS_TOTAL, "cost", nano, 0),)

    async with gateway(store, tmp_path, lease_ms=0) as slow, gateway(store, tmp_path, on_crash) as other:
        await slow.ledger.admit(slow.lease())
        await other.ledger.tend(cells_of)
        assert await other.used() == (charged, 0)
        assert asked == [("l1", charged)]
        await other.ledger.tend(cells_of)
        for _ in range(2):
            await slow.ledger.settle(slow.lease(), 25, cells=(CostCell(layout.COSTS_TOTAL, "cost", 25, 0),))
        assert await other.used() == (25, 0)
        assert await store.call("HGET", layout.COSTS_TOTAL, "cost") == b"25"
        await slow.journal.flush()
        assert ("X", "l1", charged) in await other.written()


async def test_what_the_aggregates_cannot_take_does_not_stay_held(store: Store, tmp_path: Path) -> None:
    async with gateway(store, tmp_path, lease_ms=0) as slow:
        await slow.ledger.admit(slow.lease())
        await slow.ledger.tend(lambda lease, nano: [CostCell("k", "f", 1 // (nano - 40), 0)])
        assert await slow.used() == (40, 0)


async def test_what_runs_is_renewed_even_after_a_pause_of_the_process(store: Store, tmp_path: Path) -> None:
    async with gateway(store, tmp_path, lease_ms=200) as one:
        await one.ledger.admit(one.lease(), (), CHAIR)
        await asyncio.sleep(0.25)
        assert [each.id for each in await one.calls.expired()] == ["l1"]
        one.clock.advance(1)
        await one.ledger.tend()
        assert await one.used() == (0, 40)
        assert await one.calls.expired() == []


async def test_a_request_whose_task_was_cancelled_holds_nothing(one: Gateway, store: Store) -> None:
    """Its client left while the store was deciding: nobody is there to let go of what was held."""
    asking = TaskOwner(lambda name, error: None)
    task = asking.spawn(one.ledger.admit(one.lease(), (), CHAIR), "admit")
    await asyncio.sleep(0)  # it asks
    await asyncio.sleep(0)  # the store's client sends
    task.cancel()
    await asking.drain(1)
    await eventually(lambda: _is_held(one))
    assert task.cancelled()
    await one.ledger.tend()
    assert await one.used() == (0, 0)
    assert await store.call("EXISTS", CHAIR.key) == 0


async def _is_held(one: Gateway) -> bool:
    return await one.used() == (0, 40)


async def test_what_is_taken_back_late_is_written_down(store: Store, tmp_path: Path) -> None:
    """Else the journals charge for ever what the store does not, after a gateway was stopped for a while."""
    async with gateway(store, tmp_path, lease_ms=0) as slow, gateway(store, tmp_path) as other:
        await slow.calls.admit(slow.lease(), lease_ms=0)
        slow.ledger._doubt(slow.lease(), None)
        await other.ledger.tend()
        assert await other.used() == (40, 0)
        await slow.ledger.tend()
        assert await other.used() == (0, 0)
        assert ("S", "l1", 0) in await slow.written()


async def test_all_that_a_dead_gateway_left_is_settled_at_once(one: Gateway) -> None:
    """What is corrected now is money that somebody may spend; it must not wait for a thousand others."""
    free = TOTAL._replace(limit_nano=None)
    await asyncio.gather(*(one.ledger.admit(one.lease(f"l{n}", 1, free)) for n in range(350)))
    for lease in list(one.ledger.open_leases.values()):
        await one.outbox.put(entry_of(SETTLED, lease, 1, 1))
    await one.ledger.tend()
    assert one.outbox.pending() == {} and await one.used() == (350, 0)


async def test_it_tends_by_itself(store: Store, tmp_path: Path) -> None:
    async with gateway(store, tmp_path, lease_ms=0) as slow, gateway(store, tmp_path, lease_ms=30) as one:
        await slow.ledger.admit(slow.lease())
        tasks = TaskOwner(lambda name, error: pytest.fail(repr(error)))
        tasks.spawn(one.ledger.run(), "ledger")

        async def charged() -> bool:
            return await one.used() == (40, 0)

        await eventually(charged)
        one.ledger._doubt(one.lease("l2"), None)
        await eventually(lambda: not one.ledger._doubtful)
        await tasks.cancel()


# --- the store away ---------------------------------------------------------------------------------------------------


class Server:
    """A server of its own, that can be stopped and killed."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "s"
        self._command = [find_server(), "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        self._command += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder)]
        self._log = folder / "log"
        self.start()

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until(self.socket.exists)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:  # type: ignore[misc]
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.kill()


@pytest.fixture
async def away(server: Server, tmp_path: Path) -> AsyncIterator[Gateway]:
    store = Store(Address(path=str(server.socket)))
    await store.open()
    async with gateway(store, tmp_path) as made:
        yield made
    await store.aclose()


async def test_a_stopped_store_refuses_paid_work_in_time_and_heals(away: Gateway, server: Server) -> None:
    """What was asked and given up must not be held once the server wakes and reads it."""
    await away.ledger.admit(away.lease("l0", 10))
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(BudgetStoreUnavailable):
        await away.ledger.admit(away.lease("l1"), (), CHAIR)
    assert time.monotonic() - began < 5, "in half a second on a machine that has time"
    await away.ledger.settle(away.lease("l0", 10), 7)
    assert list(away.outbox.pending()) == ["l0"]
    with pytest.raises(StoreUnavailable):
        await away.ledger.admit(None, (RATE,))
    assert not await away.ledger.extend(away.lease("l0", 10), 1)
    await away.ledger.hand_back((), CHAIR)
    server.signal(signal.SIGCONT)

    async def healed() -> bool:
        await away.ledger.tend()
        return not away.outbox.pending() and not away.ledger._doubtful

    await eventually(healed)
    assert away.ledger.lends
    assert await away.used() == (7, 0)
    assert await away.ledger.held() == []


async def test_a_store_that_was_killed_gets_its_settlements_later(away: Gateway, server: Server) -> None:
    await away.ledger.admit(away.lease())
    server.kill()
    await away.ledger.settle(away.lease(), 25)
    await away.ledger.tend()
    assert list(away.outbox.pending()) == ["l1"]
    assert "l1" in away.ledger.open_leases, "the hold stays meanwhile"
    until_down = time.monotonic() + 5
    while away.ledger.lends and time.monotonic() < until_down:
        await asyncio.sleep(0.01)
    with pytest.raises(BudgetStoreUnavailable):
        await away.ledger.admit(away.lease("l2"))
    assert away.ledger._doubtful == {}, "what was never sent needs no taking back"
    server.start()

    async def settled() -> bool:
        await away.ledger.tend()
        return not away.outbox.pending()

    await eventually(settled)
    assert await away.used() == (25, 0)
    assert away.ledger.open_leases == {}


async def test_a_settlement_survives_its_gateway(store: Store, tmp_path: Path) -> None:
    """Killed after the store had refused it: whoever starts next in the same folder brings it."""
    async with gateway(store, tmp_path) as first:
        await first.ledger.admit(first.lease())
        await first.outbox.put(Entry("S", "l1", 25, 40, (TOTAL,), first.ledger.epoch, 1, "settled"))
    async with gateway(store, tmp_path) as second:
        await second.ledger.tend()
        assert await second.used() == (25, 0)
        assert not second.outbox.pending()


async def test_a_settlement_whose_task_is_cancelled_is_kept(away: Gateway, server: Server) -> None:
    await away.ledger.admit(away.lease())
    server.signal(signal.SIGSTOP)
    settling = TaskOwner(lambda name, error: None)
    settling.spawn(away.ledger.settle(away.lease(), 25), "settle")
    giving = settling.spawn(away.ledger.hand_back((), CHAIR), "hand back")
    await asyncio.sleep(0.01)
    await settling.cancel()
    assert giving.cancelled()
    assert list(away.outbox.pending()) == ["l1"]
    server.signal(signal.SIGCONT)


async def test_records_of_free_answers_do_not_pile_up_for_ever(
    away: Gateway, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.spend.ledger.MOST_RECORDS", 2)
    assert MOST_RECORDS > 2
    server.kill()
    for each in "abcd":
        await away.ledger.settle(away.lease(each), 0, "recorded")
    await away.ledger.settle(away.lease("paid"), 3, "recorded")
    assert list(away.outbox.pending()) == ["a", "b", "paid"]


async def test_a_ledger_that_starts_without_the_store_lends_once_it_is_there(
    away: Gateway, server: Server, tmp_path: Path
) -> None:
    server.signal(signal.SIGSTOP)
    late = Gateway(tmp_path / "late", away.calls)
    await late.ledger.open(Remembered(tmp_path / "late"))
    assert late.ledger.epoch == ""
    server.signal(signal.SIGCONT)

    async def agrees() -> bool:
        await late.ledger.tend()
        return late.ledger.epoch == away.ledger.epoch

    await eventually(agrees)


# --- the store emptied ------------------------------------------------------------------------------------------------


async def test_a_new_store_begins_and_is_known_again(one: Gateway, store: Store, tmp_path: Path) -> None:
    assert one.ledger.epoch.startswith("begun-")
    assert Remembered(tmp_path).read() == one.ledger.epoch
    async with gateway(store, tmp_path) as again:
        assert again.ledger.epoch == one.ledger.epoch


async def test_an_emptied_store_lends_nothing_until_its_books_are_back(
    one: Gateway, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise everything could be spent once more."""
    epoch = one.ledger.epoch
    await store.call("DEL", layout.EPOCH)
    with pytest.raises(BudgetStoreUnavailable, match=r"tierway ledger rebuild.*tierway ledger reset"):
        await one.ledger.admit(one.lease())
    with caplog.at_level(logging.ERROR):
        await one.ledger.tend()
        await one.ledger.tend()
    assert caplog.text.count("lost its books") == 1
    assert not one.ledger.lends
    async with gateway(store, tmp_path) as restarted:
        with pytest.raises(BudgetStoreUnavailable):
            await restarted.ledger.admit(restarted.lease())
    await store.call("SET", layout.EPOCH, epoch)
    assert await one.ledger.admit(one.lease()) == Admitted()
    await one.ledger.tend()
    assert one.ledger.lends


async def test_a_newcomer_cannot_begin_anew_for_those_who_know(one: Gateway, store: Store, tmp_path: Path) -> None:
    await store.call("FLUSHALL")
    async with gateway(store, tmp_path / "elsewhere") as newcomer:
        assert newcomer.ledger.epoch != one.ledger.epoch
        with pytest.raises(BudgetStoreUnavailable):
            await one.ledger.admit(one.lease())


@pytest.mark.parametrize("kind", ["rebuilt", "reset"])
async def test_what_an_operator_began_is_taken_over_at_once(
    one: Gateway, store: Store, tmp_path: Path, kind: str
) -> None:
    lease = one.lease()
    await store.call("SET", layout.EPOCH, f"{kind}-1")
    assert await one.ledger.admit(lease) == Admitted()
    assert (lease.epoch, one.ledger.epoch, Remembered(tmp_path).read()) == (f"{kind}-1",) * 3


async def test_settlements_wait_for_the_books_and_end_with_those_they_belong_to(one: Gateway, store: Store) -> None:
    await one.ledger.admit(one.lease())
    await store.call("FLUSHALL")
    await one.ledger.settle(one.lease(), 25)
    await one.ledger.tend()
    assert list(one.outbox.pending()) == ["l1"]
    await store.call("SET", layout.EPOCH, "reset-1")
    await one.ledger.tend()
    assert not one.outbox.pending()
    assert await one.used() == (0, 0)


async def test_a_step_that_fails_does_not_keep_the_others(one: Gateway, store: Store, tmp_path: Path) -> None:
    """A seat that cannot be given back is no reason to leave the dead unsettled."""
    async with gateway(store, tmp_path, lease_ms=0) as slow:
        await slow.ledger.admit(slow.lease())
        await store.call("SET", CHAIR.key, "what is no set")
        one.ledger._doubt(None, CHAIR)
        await one.ledger.tend()
        assert await one.used() == (40, 0)


async def test_what_cannot_be_booked_keeps_nobody_else_from_it(one: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """One broken entry in the outbox, of a dead gateway, say, and no settlement ever reached the store any more."""
    for lease in (leases := [one.lease(f"l{number}", 10) for number in range(3)]):
        await one.ledger.admit(lease)
        await one.outbox.put(entry_of(SETTLED, lease, 1, 4))
    broken = replace(leases[0], counters=(TOTAL._replace(ends_ms=[1]),))  # type: ignore[arg-type]
    await one.outbox.put(entry_of(SETTLED, broken, 1, 4))
    for _ in range(3):
        await one.ledger.tend()
    assert list(one.outbox.pending()) == ["l0"] and await one.used() == (8, 10)
    assert caplog.text.count("cannot settle again lease l0") == 1, "who reads that every second reads nothing else"
    await one.outbox.put(entry_of(SETTLED, leases[0], 1, 4))
    await one.ledger.tend()
    assert not one.outbox.pending() and await one.used() == (12, 0)


async def test_who_cannot_be_let_go_of_keeps_nobody_else_held(one: Gateway, store: Store) -> None:
    await store.call("SET", CHAIR.key, "what is no set")
    free = Seats(layout.key("seats", "other"), 1, "r2")
    await one.calls.admit(one.lease(), (), free, lease_ms=LEASE_MS)
    one.ledger._doubt(None, CHAIR)
    one.ledger._doubt(one.lease("l0"), CHAIR)
    one.ledger._doubt(one.lease(), free)
    for _ in range(2):
        await one.ledger.tend()
    assert await one.used() == (0, 0) and await store.call("EXISTS", free.key) == 0
    assert sorted(one.ledger._doubtful) == ["l0", "r1"]
    assert (await one.written()).count(("S", "l0", 0)) == 1, "written down once, not every second"
    await store.call("DEL", CHAIR.key)
    await one.ledger.tend()
    assert not one.ledger._doubtful


async def test_the_dead_are_settled_beside_one_who_cannot_be(store: Store, tmp_path: Path) -> None:
    """Their money may be spent by others."""
    odd = Counter("odd", "global", "total", layout.key("spend", "odd"), None, 0, 0)
    async with gateway(store, tmp_path, lease_ms=0) as slow:
        await slow.ledger.admit(slow.lease("l1", 1, odd))
        await slow.ledger.admit(slow.lease("l2"))
        await store.call("SET", odd.key, "what is no counter")
        await store.call("ZADD", layout.LEASES, 1, "l3")
        await store.call("HSET", layout.key("lease", "l3"), "s", "held", "a", "5", "k", "[[1]]", "t", "1")
        for _ in range(2):
            await slow.ledger.tend()
        assert await slow.used() == (40, 0)
        assert (await slow.written()).count(("X", "l1", 1)) == 1


async def test_nothing_ends_it(store: Store, tmp_path: Path) -> None:
    """Nobody would notice: what is due is settled by nobody else, until the gateway is started again."""

    class Cursed(LedgerStore):
        async def renew(self, leases: Sequence[Lease], seats: Sequence[Seats], lease_ms: int) -> None:
            raise RuntimeError("a fault of ours")

    async with gateway(store, tmp_path, lease_ms=0, calls=Cursed(store)) as one:
        await one.ledger.admit(one.lease())
        await one.ledger.tend()
        assert await one.used() == (40, 0)


async def test_what_a_limit_promises_is_durable(tmp_path: Path) -> None:
    asked = []

    async def make_durable() -> None:
        asked.append(1)

    async with puppet(tmp_path, ok) as server:
        store = Store(server.address, make_durable=make_durable)
        await Gateway(tmp_path, LedgerStore(store)).ledger.make_durable()
    assert asked == [1]


async def test_the_lease_of_somebody_else_is_never_over_reserved_twice(one: Gateway) -> None:
    await one.ledger.admit(one.lease())
    assert await one.calls.settle(one.lease(), 50, "settled") == Settled(True, "held", 50, 40)
    await one.ledger.settle(one.lease(), 50)
    assert one.over == []


async def test_a_hold_that_the_store_forgot_is_paid_all_the_same(one: Gateway, store: Store) -> None:
    """A replica took over that had not heard of it yet: what was asked meanwhile is on the bill."""
    await one.ledger.admit(lease := one.lease())
    await store.call("DEL", layout.key("lease", "l1"), layout.LEASES, TOTAL.key)
    for _ in range(2):
        await one.ledger.settle(lease, 25)
    assert await one.used() == (25, 0)
    assert one.ledger.open_leases == {}
