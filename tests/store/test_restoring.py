"""Without these an operator could not restore the books of a store, or would restore them wrongly."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.core.spending import CostCell, Counter, Lease
from app.store import layout, restoring
from app.store.client import Store
from app.store.ledger import Admitted, LedgerStore, Settled, WrongEpoch
from app.store.restoring import Amounts, LedgerKeys, Unsettled, Written, counts_spend, sums_costs

DAY_MS = 86_400_000
TOTAL = Counter("key:k:total", "key", "total", layout.key("spend", "k"), 1_000, 0, 0)
REQUEST = Counter("request", "request", "total", layout.key("spend-request", "r"), 1_000, 0, 0, 172_800_000)
CELL = CostCell(layout.key("costs", "2026-11-20"), "n", 1, 3_600)


async def today(keys: LedgerKeys) -> Counter:
    starts_ms = await keys.now_ms() // DAY_MS * DAY_MS
    return Counter(
        "global:*:day", "global", "day", layout.key("spend-day", "g"), 1_000, starts_ms, starts_ms + 2 * DAY_MS
    )


async def admit(store: Store, id: str, held: int, *counters: Counter, epoch: str = "e") -> Any:
    lease = Lease(id, id, "m", held, counters, epoch)
    return await LedgerStore(store).admit(lease, lease_ms=60_000)


async def settle(store: Store, id: str, actual: int, *counters: Counter, epoch: str = "e") -> Any:
    lease = Lease(id, id, "m", 0, counters, epoch)
    return await LedgerStore(store).settle(lease, actual, "settled", [CELL])


async def test_the_epoch_is_put_and_taken(store: Store) -> None:
    keys = LedgerKeys(store)
    assert await keys.epoch() == ""
    await keys.begin("e")
    assert await keys.epoch() == "e" and isinstance(await admit(store, "a", 5, TOTAL), Admitted)
    await keys.end()
    assert await keys.epoch() == "" and await admit(store, "b", 5, TOTAL) == WrongEpoch("")


async def test_counters_and_open_leases_are_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, of every kind."""
    monkeypatch.setattr(restoring, "AT_ONCE", 2)
    keys = LedgerKeys(store)
    await keys.begin("e")
    day = await today(keys)
    for id in "abcde":
        await admit(store, id, 7, TOTAL, REQUEST, day)
    await settle(store, "a", 3, TOTAL, REQUEST, day)
    found = await keys.counters()
    assert {key: each[:2] for key, each in found.items()} == {each.key: (3, 28) for each in (TOTAL, REQUEST, day)}
    assert [found[each.key].ending for each in (TOTAL, REQUEST, day)] == [False, True, False]
    leases = await keys.open_leases()
    assert {*leases} == {*"bcde"} and leases["b"] == (7, (TOTAL.key, REQUEST.key, day.key))
    await store.call("HSET", layout.key("lease", "b"), "s", "settled")  # settled between two looks
    assert {*await keys.open_leases()} == {*"cde"}


async def test_what_is_written_is_what_the_ledger_goes_on_with(store: Store) -> None:
    keys = LedgerKeys(store)
    day = await today(keys)
    over_ms = await keys.now_ms() + 50_000
    done: list[int] = []
    await keys.write(
        [Written(TOTAL, 600, 0), Written(REQUEST, 5, over_ms), Written(day, 700, 0)],
        [Unsettled("late", 100, 100, [(CELL.key, "n", 1)]), Unsettled("waiting", 7, 6, final="settled")],
        [Amounts(CELL.key, {"n": 4, "nano": 600}, over_ms), Amounts(layout.COSTS_TOTAL, {"n": 9}, 0)],
        done.append,
    )
    await keys.begin("e")
    assert sum(done) == 7
    for key in (TOTAL.key, REQUEST.key, day.key, CELL.key, layout.COSTS_TOTAL, layout.key("lease", "late")):
        assert layout.fault_of(key, await store.call("TTL", key)) is None
    assert 0 < await store.call("PTTL", REQUEST.key) <= 50_000 and 0 < await store.call("PTTL", CELL.key) <= 50_000
    assert await store.call("TTL", layout.COSTS_TOTAL) == -1

    assert await admit(store, "new", 401, TOTAL) != Admitted() and await admit(store, "new", 400, TOTAL) == Admitted()
    assert await settle(store, "late", 30, TOTAL, day) == Settled(True, "expired", -70, 100)
    assert await settle(store, "waiting", 6, TOTAL, day) == Settled(False, "settled")
    counted = await keys.counters()
    assert counted[TOTAL.key][:2] == (530, 400) and counted[day.key][:2] == (630, 0)
    assert await store.call("HGET", CELL.key, "n") == b"4"  # its expiry had counted it already


async def test_emptying_takes_what_binds_and_leaves_what_is_told(store: Store) -> None:
    keys = LedgerKeys(store)
    await keys.begin("e")
    day = await today(keys)
    await admit(store, "a", 7, TOTAL, REQUEST, day)
    await admit(store, "b", 7, day)
    await settle(store, "b", 3, day)
    await store.call("HSET", layout.KEYS, "key_1", "{}")
    assert await keys.clear() == 5
    left = {bytes(key).decode() for key in await store.call("KEYS", "*")}
    assert left == {layout.LAYOUT, layout.EPOCH, layout.KEYS, CELL.key}


async def test_of_many_keys_none_is_missed(store: Store) -> None:
    keys = LedgerKeys(store)
    many = [Written(TOTAL._replace(key=layout.key("spend", str(number))), number, 0) for number in range(2_500)]
    await keys.write(many, [], [], lambda _: None)
    assert len(await asyncio.wait_for(keys.counters(), 30)) == 2_500 and await keys.clear() == 2_500


def test_only_keys_of_the_ledger_are_its_own() -> None:
    assert counts_spend(TOTAL.key) and counts_spend(REQUEST.key) and not counts_spend(layout.KEYS)
    assert sums_costs(CELL.key) and sums_costs(layout.COSTS_TOTAL) and not sums_costs(TOTAL.key)
    assert not counts_spend(layout.EPOCH) and not counts_spend("spend") and not counts_spend("")
