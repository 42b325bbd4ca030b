from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from app.core.errors import InternalError, StoreUnavailable
from app.core.spending import CostCell, Counter, Lease, Rate, RateState, Seats
from app.store import layout
from app.store.client import Store
from app.store.leases import HeldLease
from app.store.ledger import (
    MOST_NANO,
    Admitted,
    Denied,
    LedgerStore,
    Limited,
    NoSeat,
    NotDue,
    Replayed,
    Settled,
    WrongEpoch,
    WrongPeriod,
)
from app.store.settling import KEPT_MS
from tests.store.live import puppet

LEASE_MS = 60_000
DAY_MS = 86_400_000


@pytest.fixture
async def ledger(store: Store) -> LedgerStore:
    ledger = LedgerStore(store)
    assert await ledger.begin("e1") == "e1"
    return ledger


def counter(name: str = "global:*:total", limit: int | None = 100, starts: int = 0, ends: int = 0) -> Counter:
    return Counter(name, name.partition(":")[0], "total", f"{layout.TAG}:spend:{name}:0", limit, starts, ends)


def lease(id: str = "l1", nano: int = 40, *counters: Counter, epoch: str = "e1") -> Lease:
    return Lease(id, "root", "claude/x", nano, counters or (counter(),), epoch)


def rate(cost: int = 1, burst: int = 10, kind: str = "requests") -> Rate:
    return Rate(kind, layout.key("rate", f"k:{kind}"), 60_000_000 // burst, burst, cost)


def seats(holder: str, most: int = 2) -> Seats:
    return Seats(layout.key("seats", "k"), most, holder)


async def now_ms(store: Store) -> int:
    seconds, micros = await store.call("TIME")
    return int(seconds) * 1_000 + int(micros) // 1_000


async def test_a_hold_becomes_what_was_spent(ledger: LedgerStore) -> None:
    held = lease()
    assert await ledger.admit(held, lease_ms=LEASE_MS) == Admitted()
    assert await ledger.used(held.counters) == [(0, 40)]
    assert await ledger.settle(held, 25, "settled") == Settled(True, "held", 25, 40)
    assert await ledger.used(held.counters) == [(25, 0)]


async def test_what_does_not_fit_one_limit_holds_nothing_in_any(ledger: LedgerStore) -> None:
    """A half-made hold blocks honest requests for ever."""
    wide, narrow = counter("global:*:total", 100), counter("key:k:total", 39)
    asked = lease("l1", 40, wide, narrow)
    answer = await ledger.admit(asked, (rate(),), seats("a"), lease_ms=LEASE_MS)
    assert answer == Denied(narrow, 0, 0)
    assert await ledger.used((wide, narrow)) == [(0, 0), (0, 0)]
    assert set(await ledger._store.call("KEYS", "*")) == {layout.LAYOUT.encode(), layout.EPOCH.encode()}


async def test_a_limit_can_be_spent_to_the_last_nano(ledger: LedgerStore) -> None:
    assert await ledger.admit(lease("l1", 60), lease_ms=LEASE_MS) == Admitted()
    assert await ledger.admit(lease("l2", 41), lease_ms=LEASE_MS) == Denied(counter(), 0, 60)
    assert await ledger.admit(lease("l3", 40), lease_ms=LEASE_MS) == Admitted()
    await ledger.settle(lease("l1"), 60, "settled")
    assert await ledger.admit(lease("l4", 1), lease_ms=LEASE_MS) == Denied(counter(), 60, 40)


async def test_sums_beyond_what_a_float_shows_stay_exact(ledger: LedgerStore, store: Store) -> None:
    """Lua writes large numbers with 14 digits if one lets it."""
    large, much = 9_007_199_254_740_991, 999_999_999_999_999
    wide = counter(limit=large)
    await store.call("HSET", wide.key, "u", large - much)
    assert await ledger.admit(lease("l1", much - 1, wide), lease_ms=LEASE_MS) == Admitted()
    assert await ledger.admit(lease("l2", 2, wide), lease_ms=LEASE_MS) == Denied(wide, large - much, much - 1)
    assert await ledger.extend(lease("l1", much - 1, wide), 1) == Admitted()
    assert await ledger.settle(lease("l1", 0, wide), much - 2, "settled") == Settled(True, "held", much - 2, much)
    assert await ledger.used((wide,)) == [(large - 2, 0)]
    assert await ledger.admit(lease("l3", 1, wide), lease_ms=LEASE_MS) == Admitted()
    assert await ledger.extend(lease("l3", 1, wide), 2) == Denied(wide, large - 2, 1)


async def test_an_amount_below_nothing_is_refused(ledger: LedgerStore) -> None:
    with pytest.raises(InternalError):
        await ledger.admit(lease("l1", -1), lease_ms=LEASE_MS)
    assert await ledger.held() == []


async def test_what_an_upstream_claims_cannot_break_the_books(ledger: LedgerStore, store: Store) -> None:
    """A usage of 10^30 tokens must neither overflow a sum nor be booked in half."""
    free, day = counter(limit=None), layout.key("costs", "d")
    cells = (CostCell(day, "tokens", 10**30, 60), CostCell(day, "requests", 1, 60))
    await ledger.admit(lease("l1", 10**30, free), lease_ms=LEASE_MS)
    assert await ledger.extend(lease("l1", 10**30, free), 10**30) == Admitted()
    assert await ledger.settle(lease("l1", 0, free), 10**30, "settled", cells) == Settled(
        True, "held", MOST_NANO, MOST_NANO
    )
    assert await ledger.used((free,)) == [(MOST_NANO, 0)]
    assert await store.call("HGETALL", day) == [b"requests", b"1"]


async def test_free_work_goes_on_where_a_limit_is_overrun(ledger: LedgerStore) -> None:
    await ledger.admit(lease("l1", 40), lease_ms=LEASE_MS)
    await ledger.settle(lease("l1", 40), 150, "settled")
    assert await ledger.admit(lease("l2", 0), lease_ms=LEASE_MS) == Admitted()


async def test_asking_twice_takes_once(ledger: LedgerStore) -> None:
    """The client of the store sends again what it does not know to have arrived."""
    first = await ledger.admit(lease(), (rate(4),), seats("a", 1), lease_ms=LEASE_MS)
    again = await ledger.admit(lease(), (rate(4),), seats("a", 1), lease_ms=LEASE_MS)
    assert isinstance(first, Admitted)
    assert isinstance(again, Replayed)
    assert (again.state, again.rates[0].remaining) == ("held", first.rates[0].remaining) == ("held", 6)
    assert await ledger.used((counter(),)) == [(0, 40)]


async def test_every_repeated_call_counts_once(ledger: LedgerStore) -> None:
    cell = CostCell(f"{layout.TAG}:costs:d", "model|x|cost", 25, 100)
    await ledger.admit(lease(), lease_ms=LEASE_MS)
    for _ in range(2):
        assert await ledger.extend(lease(), 10) == Admitted()
    assert await ledger.used((counter(),)) == [(0, 50)]
    assert await ledger.settle(lease(), 25, "settled", (cell,)) == Settled(True, "held", 25, 50)
    assert await ledger.settle(lease(), 25, "settled", (cell,)) == Settled(False, "settled")
    assert await ledger.settle(lease(), 0, "released", (cell,)) == Settled(False, "settled")
    assert await ledger.settle(lease(), None, "expired", (cell,)) == Settled(False, "settled")
    assert await ledger.admit(lease(), lease_ms=LEASE_MS) == Replayed("settled")
    assert await ledger.used((counter(),)) == [(25, 0)]
    assert await ledger._store.call("HGETALL", cell.key) == [b"model|x|cost", b"25"]


async def test_a_stream_holds_more_while_there_is_more(ledger: LedgerStore) -> None:
    await ledger.admit(lease("l1", 40), lease_ms=LEASE_MS)
    assert await ledger.extend(lease("l1", 40), 60) == Admitted()
    assert await ledger.extend(lease("l1", 100), 1) == Denied(counter(), 0, 100)
    assert await ledger.extend(lease("l9"), 1) == Replayed("")
    await ledger.settle(lease("l1"), 70, "settled")
    assert await ledger.used((counter(),)) == [(70, 0)]
    assert await ledger.extend(lease("l1", 100), 1) == Replayed("settled")


async def test_a_counter_without_a_limit_counts(ledger: LedgerStore) -> None:
    free = counter(limit=None)
    await ledger.admit(lease("l1", 40, free), lease_ms=LEASE_MS)
    assert await ledger.extend(lease("l1", 40, free), 1_000) == Admitted()
    assert await ledger.used((free,)) == [(0, 1_040)]


async def test_the_truth_is_booked_even_above_the_hold(ledger: LedgerStore) -> None:
    await ledger.admit(lease("l1", 40), lease_ms=LEASE_MS)
    assert await ledger.settle(lease("l1", 40), 45, "settled") == Settled(True, "held", 45, 40)
    assert await ledger.used((counter(),)) == [(45, 0)]


async def test_a_store_without_our_epoch_lends_nothing(ledger: LedgerStore, store: Store) -> None:
    """An emptied store would let everything be spent once more."""
    assert await ledger.admit(lease(epoch="e0"), lease_ms=LEASE_MS) == WrongEpoch("e1")
    await store.call("DEL", layout.EPOCH)
    assert await ledger.epoch() is None
    for epoch in ("e1", ""):
        assert await ledger.admit(lease(epoch=epoch), lease_ms=LEASE_MS) == WrongEpoch("")
        assert await ledger.extend(lease(epoch=epoch), 1) == Replayed("")
        assert await ledger.settle(lease(epoch=epoch), 1, "settled") == WrongEpoch("")
    assert isinstance(await ledger.admit(None, (rate(),), lease_ms=LEASE_MS), Admitted)
    assert await ledger.begin("e2") == "e2"
    assert await ledger.begin("e3") == "e2"


async def test_a_lease_that_is_there_is_settled_whatever_the_epoch(ledger: LedgerStore, store: Store) -> None:
    """A hold that nobody can let go would block honest requests."""
    await ledger.admit(lease(), lease_ms=LEASE_MS)
    await store.call("SET", layout.EPOCH, "e2")
    assert await ledger.settle(lease(), 5, "settled") == Settled(True, "held", 5, 40)


async def test_a_wrong_idea_of_the_period_is_corrected(ledger: LedgerStore, store: Store) -> None:
    now = await now_ms(store)
    for starts, ends in ((now - 2_000, now - 1_000), (now + DAY_MS, now + 2 * DAY_MS)):
        wrong = counter("global:*:day", 100, starts, ends)
        answer = await ledger.admit(lease("l1", 40, counter(), wrong), (rate(),), lease_ms=LEASE_MS)
        assert isinstance(answer, WrongPeriod)
        assert now <= answer.now_ms < now + 60_000
    assert await ledger.used((counter(),)) == [(0, 0)]
    right = counter("global:*:day", 100, now - 1_000, now + DAY_MS)
    assert await ledger.admit(lease("l1", 40, right), lease_ms=LEASE_MS) == Admitted()


async def test_what_began_in_a_period_ends_in_it(ledger: LedgerStore, store: Store) -> None:
    now = await now_ms(store)
    old = counter("global:*:day", 100, now - DAY_MS, now + 300)
    held = lease("l1", 40, old)
    assert await ledger.admit(held, lease_ms=LEASE_MS) == Admitted()
    while await now_ms(store) < old.ends_ms:
        await asyncio.sleep(0.02)
    assert isinstance(await ledger.admit(lease("l2", 1, old), lease_ms=LEASE_MS), WrongPeriod)
    assert await ledger.extend(held, 10) == Admitted()
    assert await ledger.settle(held, 45, "settled") == Settled(True, "held", 45, 50)
    assert await ledger.used((old,)) == [(45, 0)]


async def test_every_key_lives_as_long_as_it_should(ledger: LedgerStore, store: Store) -> None:
    now = await now_ms(store)
    key = layout.key
    day = Counter("global:*:day", "global", "day", key("spend-day", "g"), 100, now - DAY_MS + 5_000, now + 5_000)
    total = Counter("global:*:total", "global", "total", key("spend", "g"), 100, 0, 0)
    request = Counter("request:r", "request", "total", key("spend-request", "r"), 100, 0, 0, 2 * DAY_MS)
    cells = (CostCell(key("costs", "d"), "f", 1, 30 * 86_400), CostCell(layout.COSTS_TOTAL, "f", 1, 0))
    held = lease("l1", 40, day, total, request)
    await ledger.admit(held, (rate(),), seats("a"), lease_ms=LEASE_MS)
    await ledger.admit(lease("l2", 1, day), lease_ms=0)
    await ledger.hand_back(((rate(), -1_000),))
    await _all_keys_live_as_declared(store)
    await ledger.settle(held, 1, "settled", cells)
    await ledger.settle(lease("l3", 0, day, total, request), 1, "recorded", cells)
    await _all_keys_live_as_declared(store)
    await ledger.settle(lease("l2", 1, day), None, "expired", cells)
    left = await store.call("PTTL", day.key)
    assert KEPT_MS < left <= KEPT_MS + 5_000
    await _all_keys_live_as_declared(store)


async def _all_keys_live_as_declared(store: Store) -> None:
    for name in await store.call("KEYS", "*"):
        assert layout.fault_of(name.decode(), await store.call("TTL", name)) is None


async def test_a_counter_whose_time_is_over_does_not_come_back(ledger: LedgerStore, store: Store) -> None:
    """It would stay for ever, with less than nothing held."""
    await ledger.admit(lease(), lease_ms=LEASE_MS)
    await store.call("DEL", counter().key)
    assert (await ledger.settle(lease(), 5, "settled")) == Settled(True, "held", 5, 40)
    assert await store.call("EXISTS", counter().key) == 0


# --- what dies --------------------------------------------------------------------------------------------------------


async def test_the_lease_of_the_dead_is_charged_once_and_corrected_once(ledger: LedgerStore) -> None:
    await ledger.admit(lease(), lease_ms=0, note=b'{"model":"m"}')
    (due,) = await ledger.expired()
    assert due == HeldLease("l1", "root", "claude/x", 40, (counter(),), b'{"model":"m"}', due.since_ms, due.since_ms)
    found = due.lease("e1")
    assert (found.id, found.held_nano, found.counters) == ("l1", 40, (counter(),))
    assert await ledger.settle(found, None, "expired") == Settled(True, "held", 40, 40)
    assert await ledger.settle(found, None, "expired") == Settled(False, "expired")
    assert await ledger.used((counter(),)) == [(40, 0)]
    assert await ledger.expired() == []
    assert await ledger.settle(lease(), 25, "settled") == Settled(True, "expired", -15, 40)
    assert await ledger.settle(lease(), 25, "settled") == Settled(False, "settled")
    assert await ledger.used((counter(),)) == [(25, 0)]


async def test_one_can_choose_to_let_the_dead_go_free(ledger: LedgerStore) -> None:
    await ledger.admit(lease(), lease_ms=0)
    assert await ledger.settle(lease(), 0, "expired") == Settled(True, "held", 0, 40)
    assert await ledger.used((counter(),)) == [(0, 0)]
    assert await ledger.settle(lease(), 25, "settled") == Settled(True, "expired", 25, 40)
    assert await ledger.used((counter(),)) == [(25, 0)]


async def test_a_lease_that_lives_cannot_be_expired(ledger: LedgerStore) -> None:
    await ledger.admit(lease(), lease_ms=LEASE_MS)
    assert await ledger.expired() == []
    assert await ledger.settle(lease(), None, "expired") == NotDue()
    assert await ledger.used((counter(),)) == [(0, 40)]


async def test_a_running_request_keeps_its_lease_and_its_seat(ledger: LedgerStore, store: Store) -> None:
    many = [lease(f"l{i}", 0) for i in range(450)]
    for each in many:
        await ledger.admit(each, lease_ms=0)
    chair = seats("a", 1)
    await ledger.admit(None, (), chair, lease_ms=50)
    assert len(await ledger.expired(1_000)) == 450
    await ledger.renew(many, [chair], LEASE_MS)
    assert await ledger.expired(1_000) == []
    await asyncio.sleep(0.06)
    assert await ledger.admit(None, (), seats("b", 1), lease_ms=50) == NoSeat(1)
    await ledger.renew(many[:1], [], 5)
    assert len(await ledger.held()) == 450
    assert await ledger.expired() == [], "a lease never becomes shorter"


async def test_what_has_ended_is_not_renewed(ledger: LedgerStore) -> None:
    await ledger.admit(lease(), (), seats("a"), lease_ms=LEASE_MS)
    await ledger.settle(lease(), 1, "settled")
    await ledger.hand_back((), seats("a"))
    await ledger.renew([lease()], [seats("a")], LEASE_MS)
    assert await ledger.held() == []
    assert await ledger._store.call("EXISTS", seats("a").key) == 0


async def test_a_release_that_overtakes_its_admission_holds_nothing(ledger: LedgerStore) -> None:
    """An admission that was given up may still lie in the buffer of a server that was stopped."""
    assert await ledger.settle(lease(), 0, "released") == Settled(False, "")
    assert await ledger.admit(lease(), (rate(),), lease_ms=LEASE_MS) == Replayed(
        "released", (RateState("requests", 10, 10, 0.0),)
    )
    assert await ledger.used((counter(),)) == [(0, 0)]


async def test_a_lease_whose_record_is_gone_does_not_stand_in_the_way(ledger: LedgerStore, store: Store) -> None:
    await ledger.admit(lease("l1"), lease_ms=0)
    await ledger.admit(lease("l2"), lease_ms=0)
    await store.call("DEL", layout.key("lease", "l1"))
    assert [each.id for each in await ledger.expired(1)] == []
    assert [each.id for each in await ledger.expired(1)] == ["l2"]


async def test_what_was_never_held_is_recorded_once(ledger: LedgerStore, store: Store) -> None:
    """A free answer takes no hold, and is to be seen in the books all the same."""
    cell = CostCell(layout.key("costs", "d"), "requests", 1, 60)
    for applied in (True, False):
        said = await ledger.settle(lease("l1", 0), 3, "recorded", (cell,))
        assert (said.applied if isinstance(said, Settled) else None) is applied
    assert await ledger.used((counter(),)) == [(3, 0)]
    assert await store.call("HGET", cell.key, "requests") == b"1"


# --- aggregates -------------------------------------------------------------------------------------------------------


async def test_an_expiry_and_its_correction_come_to_one_entry(ledger: LedgerStore, store: Store) -> None:
    """Otherwise a crash shows in the reports as two requests, or as none."""
    day, ever = layout.key("costs", "d"), layout.COSTS_TOTAL
    guess = [CostCell(day, "m:requests", 1, 60), CostCell(day, "m:cost", 40, 60), CostCell(ever, "m:cost", 40, 0)]
    truth = [
        *guess[:1],
        CostCell(day, "m:cost", 25, 60),
        CostCell(day, "m:out", 7, 60),
        CostCell(ever, "m:cost", 25, 0),
    ]
    await ledger.admit(lease(), lease_ms=0)
    await ledger.settle(lease(), None, "expired", guess)
    assert await store.call("HGET", day, "m:cost") == b"40"
    await ledger.settle(lease(), 25, "settled", truth)
    await ledger.settle(lease(), 25, "settled", truth)
    assert await store.call("HMGET", day, "m:requests", "m:cost", "m:out") == [b"1", b"25", b"7"]
    assert await store.call("HGET", ever, "m:cost") == b"25"
    assert 0 < await store.call("TTL", day) <= 60
    assert await store.call("TTL", ever) == -1


# --- rates and seats --------------------------------------------------------------------------------------------------


async def test_a_rate_lets_its_burst_through_and_says_when_to_come_back(ledger: LedgerStore) -> None:
    for left in (6, 2):
        answer = await ledger.admit(None, (rate(4),), lease_ms=LEASE_MS)
        assert isinstance(answer, Admitted)
        assert (answer.rates[0].limit, answer.rates[0].remaining) == (10, left)
        assert (10 - left) * 6 - 1 < answer.rates[0].reset_seconds <= (10 - left) * 6
    refused = await ledger.admit(None, (rate(4),), lease_ms=LEASE_MS)
    assert isinstance(refused, Limited)
    assert refused.rate == refused.rates[0]
    assert refused.rate.remaining == 2
    assert 10 < refused.retry_after_seconds <= 12
    never = await ledger.admit(None, (rate(11),), lease_ms=LEASE_MS)
    assert isinstance(never, Limited)
    assert never.retry_after_seconds == math.inf


async def test_a_request_that_one_rate_refuses_costs_the_other_nothing(ledger: LedgerStore) -> None:
    both = (rate(1), rate(11, kind="tokens"))
    refused = await ledger.admit(lease(), both, seats("a"), lease_ms=LEASE_MS)
    assert isinstance(refused, Limited)
    assert refused.rate.kind == "tokens"
    assert refused.rates[0].remaining == 10
    assert await ledger.used((counter(),)) == [(0, 0)]
    assert isinstance(await ledger.admit(None, (rate(10),), lease_ms=LEASE_MS), Admitted)


async def test_unused_units_come_back_and_never_more_than_there_were(ledger: LedgerStore, store: Store) -> None:
    await ledger.admit(None, (rate(8),), lease_ms=LEASE_MS)
    await ledger.hand_back(((rate(8), 5),))
    answer = await ledger.admit(None, (rate(0),), lease_ms=LEASE_MS)
    assert isinstance(answer, Admitted)
    assert answer.rates[0].remaining == 7
    await ledger.hand_back(((rate(8), 100),))
    assert await store.call("EXISTS", rate().key) == 0
    full = await ledger.admit(None, (rate(0),), lease_ms=LEASE_MS)
    assert isinstance(full, Admitted)
    assert (full.rates[0].remaining, full.rates[0].reset_seconds) == (10, 0.0)


async def test_who_used_more_than_asked_for_waits_for_it(ledger: LedgerStore) -> None:
    await ledger.admit(None, (rate(1),), lease_ms=LEASE_MS)
    await ledger.hand_back(((rate(1), -15),))
    refused = await ledger.admit(None, (rate(1),), lease_ms=LEASE_MS)
    assert isinstance(refused, Limited)
    assert refused.rate.remaining == 0
    assert 40 < refused.retry_after_seconds <= 42


async def test_seats_are_taken_kept_and_given_back(ledger: LedgerStore) -> None:
    assert await ledger.admit(None, (), seats("a", 1), lease_ms=LEASE_MS) == Admitted()
    assert await ledger.admit(None, (), seats("a", 1), lease_ms=LEASE_MS) == Admitted(), (
        "the second attempt sits already"
    )
    assert await ledger.admit(lease(), (rate(),), seats("b", 1), lease_ms=LEASE_MS) == NoSeat(1)
    assert await ledger.used((counter(),)) == [(0, 0)]
    await ledger.hand_back((), seats("a", 1))
    assert await ledger.admit(None, (), seats("b", 1), lease_ms=LEASE_MS) == Admitted()


async def test_the_seat_of_the_dead_is_free_again(ledger: LedgerStore) -> None:
    await ledger.admit(None, (), seats("a", 1), lease_ms=20)
    await asyncio.sleep(0.03)
    assert await ledger.admit(None, (), seats("b", 1), lease_ms=LEASE_MS) == Admitted()
    assert await ledger._store.call("ZCARD", seats("b").key) == 1


async def test_nothing_to_hand_back_asks_nothing(ledger: LedgerStore, store: Store) -> None:
    await store.aclose()
    await ledger.hand_back()


# --- what the store may say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply", [b":1\r\n", b"$-1\r\n", b"*0\r\n", b"*1\r\n:9\r\n", b"*1\r\n:4\r\n", b"*2\r\n:0\r\n:7\r\n"]
)
async def test_an_answer_that_is_none_is_our_error(tmp_path: Path, reply: bytes) -> None:
    """Never a crash with a stack trace, and never taken for a yes."""

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"PING":
            return b"+PONG\r\n"
        return {b"GET": b"$1\r\n1\r\n", b"SET": b"+OK\r\n"}.get(command[0], reply)

    async with puppet(tmp_path, answer) as server:
        store = Store(server.address)
        await store.open()
        ledger = LedgerStore(store)
        assert ledger.reachable
        with pytest.raises(InternalError):
            await ledger.admit(lease(), lease_ms=LEASE_MS)
        if reply != b"*1\r\n:4\r\n":
            with pytest.raises(InternalError):
                await ledger.extend(lease(), 1)
            with pytest.raises(InternalError):
                await ledger.settle(lease(), 1, "settled")
        await store.aclose()
        assert not ledger.reachable


async def test_rates_without_a_lease_are_not_asked_twice(tmp_path: Path) -> None:
    """Nothing would tell the repetition from a second request."""
    async with puppet(tmp_path) as server:
        store = Store(server.address)
        await store.open()
        server.answer = lambda command: b"HANG UP" if command[0] == b"EVALSHA" else b"+PONG\r\n"
        with pytest.raises(StoreUnavailable):
            await LedgerStore(store).admit(None, (rate(),), lease_ms=LEASE_MS)
        assert sum(command[0] == b"EVALSHA" for command in server.heard) == 1
        await store.aclose()


async def test_durability_is_the_servers(tmp_path: Path) -> None:
    asked = []

    async def make_durable() -> None:
        asked.append(1)

    async with puppet(tmp_path) as server:
        store = Store(server.address, make_durable=make_durable)
        await LedgerStore(store).make_durable()
    assert asked == [1]


async def test_what_ends_in_the_same_moment_is_booked_as_if_one_after_the_other(ledger: LedgerStore) -> None:
    """All of them are one call; sums that were mixed up would be charges that nobody can prove."""
    store, other = ledger._store, Counter("k", "key", "total", layout.key("spend", "other"), None, 0, 0)
    day, ever = layout.key("costs", "d"), layout.COSTS_TOTAL
    cells = (CostCell(day, "cost", 7, 60), CostCell(ever, "cost", 7, 0))
    for number in range(60):
        await ledger.admit(lease(f"l{number}", 1, counter(limit=1_000), other), lease_ms=LEASE_MS)
    await ledger.admit(lease("old", 5), lease_ms=0)
    await ledger.settle(lease("old", 5), None, "expired", (CostCell(day, "cost", 5, 60),))
    await store.call("SET", layout.key("lease", "bad"), "what is no hash")
    said = await asyncio.gather(
        *(ledger.settle(lease(f"l{each}", 1, counter(limit=1_000), other), 3, "settled", cells) for each in range(60)),
        ledger.settle(lease("l7", 1, counter(limit=1_000), other), 9, "settled", cells),
        ledger.settle(lease("old", 5), 2, "settled", (CostCell(day, "cost", 2, 60),)),
        ledger.settle(lease("new", 0), 4, "recorded", cells[:1]),
        ledger.settle(lease("huge", 0), MOST_NANO, "recorded"),
        ledger.settle(lease("none", 3), 4, "settled", cells),
        ledger.settle(lease("bad", 3), 4, "settled", cells),
        return_exceptions=True,
    )
    assert said[:60] == [Settled(True, "held", 3, 1)] * 60
    assert said[60:65] == [
        Settled(False, "settled"),
        Settled(True, "expired", -3, 5),
        Settled(True, "", 4, 0),
        Settled(True, "", MOST_NANO, 0),
        Settled(False, ""),
    ]
    assert isinstance(said[65], InternalError), "one that cannot be booked is no affair of the others"
    assert await ledger.used((counter(), other)) == [(180 + 2 + 4 + MOST_NANO, 0), (180, 0)]
    assert await store.call("HGETALL", day) == [b"cost", b"429"]
    assert await store.call("HGETALL", ever) == [b"cost", b"420"]
    assert await ledger.held() == []
    assert 0 < await store.call("TTL", day) <= 60


async def test_who_asks_in_the_same_moment_is_let_in_one_after_the_other(ledger: LedgerStore) -> None:
    """All of them are one call: a limit that only knows of the calls before would be lent many times over."""
    store, open_ended = ledger._store, Counter("k", "key", "total", layout.key("spend", "other"), None, 0, 0)
    await store.call("SET", layout.key("spend", "bad"), "what is no hash")
    bad = Counter("b", "key", "total", layout.key("spend", "bad"), None, 0, 0)
    said = await asyncio.gather(
        *(ledger.admit(lease(f"l{each}", 40, counter(), open_ended), lease_ms=LEASE_MS) for each in range(3)),
        ledger.admit(lease("small", 20), (rate(6),), lease_ms=LEASE_MS),
        ledger.admit(lease("l0", 40, counter(), open_ended), lease_ms=LEASE_MS),
        ledger.admit(lease("late", 0), (rate(6),), lease_ms=LEASE_MS),
        ledger.admit(lease("broken", 1, bad), lease_ms=LEASE_MS),
        ledger.admit(lease("other", 1, open_ended, epoch="e2"), lease_ms=LEASE_MS),
        ledger.admit(lease("past", 1, counter("day", ends=5)), lease_ms=LEASE_MS),
        *(ledger.admit(None, (), seats(f"s{each}"), lease_ms=LEASE_MS) for each in range(3)),
        return_exceptions=True,
    )
    assert said[:3] == [Admitted(), Admitted(), Denied(counter(), 0, 80)]
    assert isinstance(said[3], Admitted) and said[3].rates[0].remaining == 4
    assert said[4] == Replayed("held")
    assert isinstance(said[5], Limited) and said[5].rates[0].remaining == 4
    assert isinstance(said[6], InternalError), "a counter that cannot be read is no affair of the others"
    assert said[7] == WrongEpoch("e1") and isinstance(said[8], WrongPeriod)
    assert said[9:] == [Admitted(), Admitted(), NoSeat(2)]
    assert await ledger.used((counter(), open_ended)) == [(0, 100), (0, 80)]
    assert sorted(each.id for each in await ledger.held()) == ["l0", "l1", "small"]


async def test_the_largest_holds_are_added_up_exactly(ledger: LedgerStore) -> None:
    """The server's scripts reckon in floats, which lose what is beyond 2^53."""
    total = counter(limit=None)
    odd = MOST_NANO - 1
    held = [lease(f"l{each}", odd, total) for each in range(20)]
    assert set(await asyncio.gather(*(ledger.admit(each, lease_ms=LEASE_MS) for each in held))) == {Admitted()}
    assert await ledger.used((total,)) == [(0, 20 * odd)]
    await asyncio.gather(*(ledger.settle(each, odd, "settled") for each in held))
    assert await ledger.used((total,)) == [(20 * odd, 0)]


@pytest.mark.parametrize("name", ["maxmemory", "min-replicas-to-write"])
async def test_a_store_that_takes_no_writes_now_is_away_and_holds_nothing(ledger: LedgerStore, name: str) -> None:
    """What is away is waited for, or answered by another server. And what is held for a lease that is not there blocks
    honest requests until the period ends."""
    store, ends = ledger._store, await now_ms(ledger._store) + DAY_MS
    counters = counter("day", ends=ends), counter(), counter("month", ends=ends)
    held = lease("l1", 10, *counters)
    await ledger.admit(held, lease_ms=LEASE_MS)
    await store.call("CONFIG", "SET", name, 1)
    try:
        said = await asyncio.gather(
            *(ledger.admit(lease(f"n{each}", 10, *counters), lease_ms=LEASE_MS) for each in range(3)),
            ledger.admit(lease("n3", 10, counters[1]), lease_ms=LEASE_MS),
            ledger.settle(held, 5, "settled"),
            ledger.settle(lease("new", 0), 4, "recorded"),
            return_exceptions=True,
        )
    finally:
        await store.call("CONFIG", "SET", name, 0)
    assert [type(each) for each in said] == [StoreUnavailable] * len(said)
    assert await ledger.used(counters) == [(0, 10)] * 3
    assert await ledger.settle(held, 5, "settled") == Settled(True, "held", 5, 10)
