"""What a gateway left behind that died is settled by the others, who must be able to read of it, and to look past what
they cannot read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.core.spending import Counter
from app.store import layout
from app.store.client import Store
from app.store.leases import HeldLease, OpenLeases

TOTAL = Counter("global:*:total", "global", "total", layout.key("spend", "g"), 100, 0, 0)
COUNTERS = orjson.dumps([tuple(TOTAL)])


@pytest.fixture
async def leases(store: Store) -> OpenLeases:
    return OpenLeases(store)


async def put(store: Store, id: str, due_ms: int = 1, **more: Any) -> None:
    fields = {"s": "held", "a": 40, "r": "root", "m": "claude/x", "k": COUNTERS, "t": 7, "n": b"{}", **more}
    await store.call("ZADD", layout.LEASES, due_ms, id)
    await store.call("HSET", layout.key("lease", id), *(part for pair in fields.items() for part in pair))


async def test_they_are_told_as_they_were_made(leases: OpenLeases, store: Store) -> None:
    await put(store, "l1", 5)
    await put(store, "later", 10**15)
    await put(store, "settled", 1, s="settled")
    due = HeldLease("l1", "root", "claude/x", 40, (TOTAL,), b"{}", 7, 5)
    assert await leases.due(10) == [due]
    assert await leases.all(10) == [due, due._replace(id="later", expires_ms=10**15)]
    assert due.lease("e1").counters == (TOTAL,)


async def test_what_a_later_release_adds_is_no_obstacle(leases: OpenLeases, store: Store) -> None:
    """While gateways are replaced one after the other, the old ones settle what the new ones left."""
    await put(store, "l1", k=orjson.dumps([[*TOTAL, "more"], [*TOTAL[:7]]]))
    (due,) = await leases.due(10)
    assert due.counters == (TOTAL, TOTAL)


ODD: list[dict[str, Any]] = [
    {"k": b"{"},
    {"k": b"5"},
    {"k": b"[[1]]"},
    {"k": b"[{}]"},
    {"k": orjson.dumps([[*TOTAL[:4], "much", 0, 0]])},
    {"k": orjson.dumps([[*TOTAL[:5], [], 0]])},
    {"k": orjson.dumps([[1, *TOTAL[1:]]])},
    {"a": "much"},
    {"t": ""},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
async def test_who_cannot_be_read_is_told_of_once_and_hides_nobody(
    leases: OpenLeases, store: Store, caplog: pytest.LogCaptureFixture, odd: dict[str, Any]
) -> None:
    await put(store, "odd", 1, **odd)
    await put(store, "l1", 2)
    found = [[lease.id for lease in await leases.due(1)] for _ in range(3)]
    assert found == [[], ["l1"], ["l1"]], "whoever looks for one at a time comes past it"
    assert caplog.text.count("the lease odd cannot be read") == 1
    assert [lease.id for lease in await leases.all(10)] == ["l1"]


async def test_what_is_no_lease_at_all_hides_nobody_either(leases: OpenLeases, store: Store) -> None:
    await store.call("ZADD", layout.LEASES, 1, "odd")
    await store.call("SET", layout.key("lease", "odd"), "a word")
    await store.call("ZADD", layout.LEASES, 1, "bare")
    await store.call("HSET", layout.key("lease", "bare"), "s", "held")
    await put(store, "l1", 2)
    assert [lease.id for lease in await leases.due(10)] == ["l1"]


async def test_one_that_makes_sense_again_is_found(leases: OpenLeases, store: Store) -> None:
    await put(store, "l1", k=b"{")
    assert await leases.due(10) == []
    await put(store, "l1")
    assert [lease.id for lease in await leases.due(1)] == ["l1"]
    await store.call("DEL", layout.key("lease", "l1"))
    assert await leases.due(1) == [] and await store.call("EXISTS", layout.LEASES) == 0
