"""Who changed what, and why: without it nobody can say how a gateway came to do what it does."""

from __future__ import annotations

import asyncio

from app.core.clock import ManualClock
from app.gateway.audit import Audit, Entry
from app.store import layout
from app.store.client import Store

ENTRY = Entry("admin", "upstream.drain", "gpu", "repairs")


def audit(store: Store) -> Audit:
    return Audit(store, ManualClock(1_700_000_000.0))


async def change(store: Store, before: bytes | None, after: bytes | None, entry: Entry = ENTRY) -> bool:
    return await audit(store).change(layout.UPSTREAMS, "drain gpu", before, after, "upstreams", entry)


async def test_a_change_is_made_told_and_remembered_in_one(store: Store) -> None:
    assert await change(store, None, b"1")
    assert await store.call("HGET", layout.UPSTREAMS, "drain gpu") == b"1"
    assert await store.call("HGET", layout.VERSIONS, "upstreams") == b"1"
    assert await audit(store).entries() == [
        {"at": 1_700_000_000.0, "actor": "admin", "action": "upstream.drain", "subject": "gpu", "reason": "repairs"}
    ]
    assert await change(store, b"1", None, Entry("admin", "upstream.resume", "gpu"))
    assert await store.call("HEXISTS", layout.UPSTREAMS, "drain gpu") == 0
    assert [entry["action"] for entry in await audit(store).entries()] == ["upstream.resume", "upstream.drain"]
    assert len(await audit(store).entries(1)) == 1


async def test_of_two_who_change_the_same_one_wins_and_the_other_knows(store: Store) -> None:
    """Two replicas that decide at once must not take two steps."""
    won = await asyncio.gather(*(change(store, None, b"%d" % number) for number in range(5)))
    assert sorted(won) == [False] * 4 + [True]
    assert len(await audit(store).entries()) == 1
    assert await store.call("HGET", layout.VERSIONS, "upstreams") == b"1"


async def test_entries_live_as_long_as_their_partition(store: Store) -> None:
    await change(store, None, b"1")
    for key in await store.call("KEYS", "*"):
        assert layout.fault_of(key.decode(), await store.call("TTL", key)) is None


async def test_what_cannot_be_read_is_passed_over(store: Store) -> None:
    await store.call("RPUSH", layout.AUDIT, "{", "[]", '{"action": "x"}')
    assert await audit(store).entries() == [{"action": "x"}]
