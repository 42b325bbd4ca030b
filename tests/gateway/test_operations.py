"""An operator's word about an upstream must reach every gateway, and only the upstream that was meant."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.card import Card
from app.core.clock import ManualClock
from app.core.errors import NotFound, Overloaded, Refused
from app.core.upstream import Upstream
from app.gateway.audit import Audit
from app.gateway.discovery import Found
from app.gateway.operations import Around, ModelState, Operations, ReplicaState
from app.routing.registry import Registry
from app.store import layout
from app.store.address import Address
from app.store.broadcast import Broadcast
from app.store.client import Store
from app.upstreams.health import Health
from app.upstreams.http import Clocks, HttpTransport
from app.upstreams.traffic import Traffic
from app.upstreams.vllm import VllmUpstream
from tests.core.nouns import card
from tests.gateway.fakes import FakeUpstream
from tests.store.live import eventually

A, B, OTHER = card("gpu/a"), card("gpu/b"), card("gpu2/a")
FOUND = (Found("gpu", "openai", True, 2, None), Found("gpu2", "openai", True, 1, "It is not there."))


class Replica:
    """One gateway's part in it."""

    def __init__(self, store: Store, *more: Upstream) -> None:
        clock = ManualClock()
        self.health = Health({}, clock, lambda *change: None, Traffic({"gpu": 4}))
        upstreams: dict[str, Upstream] = {one.name: one for one in (FakeUpstream("gpu"), FakeUpstream("gpu2"), *more)}
        around = Around(lambda: upstreams, lambda: Registry((A, B, OTHER)), lambda: FOUND)
        self.operations = Operations(store, Audit(store, clock), self.health, around)

    def fail(self, failing: Card) -> None:
        self.health.started(failing)
        self.health.ended(failing, Refused("x"))


@contextlib.asynccontextmanager
async def following(replica: Replica, store: Store) -> AsyncIterator[None]:
    broadcast = Broadcast(store, poll=0.2)
    replica.operations.follow(broadcast)
    async with broadcast.running():
        yield


async def test_a_drain_and_a_reset_reach_every_gateway(store: Store, valkey: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        other_store = Store(Address(path=str(valkey)))
        await other_store.open()
        stack.push_async_callback(other_store.aclose)
        here, there = Replica(store), Replica(other_store)
        await stack.enter_async_context(following(there, other_store))
        await eventually(lambda: there.operations._resets is not None)

        state = await here.operations.drain("gpu")
        assert state.drained and here.health.demoted(A) == "drained by an operator"
        await eventually(lambda: there.health.demoted(A) == "drained by an operator")
        assert there.health.demoted(OTHER) is None
        assert not (await here.operations.resume("gpu")).drained
        await eventually(lambda: there.health.demoted(A) is None)

        for replica in (here, there):
            replica.fail(A)
            replica.fail(OTHER)
        for _ in range(2):  # and again, when it failed again
            await here.operations.reset("gpu")
            await eventually(lambda: there.health.demoted(A) is None)
            assert here.health.demoted(A) is None
            assert there.health.demoted(OTHER) == here.health.demoted(OTHER) == "failing lately"
            here.fail(A)
            there.fail(A)


async def test_a_gateway_that_starts_finds_drains_and_has_nothing_to_reset(store: Store) -> None:
    first = Replica(store)
    await first.operations.drain("gpu2")
    await first.operations.reset("gpu")
    late = Replica(store)
    late.fail(A)
    await late.operations.refresh()
    assert late.health.drained == {"gpu2"}
    assert late.health.demoted(A) == "failing lately"


async def test_draining_twice_is_one_change(store: Store) -> None:
    operations = Replica(store).operations
    await operations.drain("gpu")
    await operations.drain("gpu")
    await operations.resume("gpu")
    await operations.resume("gpu")
    await operations.reset("gpu")
    lines = await Audit(store, ManualClock()).entries()
    assert [line["action"] for line in lines] == ["upstream.reset", "upstream.resume", "upstream.drain"]


async def test_an_unknown_upstream_is_an_error_and_no_entry(store: Store) -> None:
    operations = Replica(store).operations
    for change in (operations.drain, operations.resume, operations.reset):
        with pytest.raises(NotFound, match="there are: "):
            await change("gpu3")
    assert await store.call("EXISTS", layout.UPSTREAMS) == 0


async def test_who_is_never_first_is_told_so(store: Store) -> None:
    class Beaten(Audit):
        async def change(self, *args: object) -> bool:
            return False

    replica = Replica(store)
    operations = Operations(store, Beaten(store, ManualClock()), replica.health, replica.operations._around)
    with pytest.raises(Overloaded):
        await operations.drain("gpu")


async def test_fields_that_make_no_sense_do_no_harm(store: Store) -> None:
    await store.call("HSET", layout.UPSTREAMS, b"\xff", "1", "reset gpu", "many", "drain", "1")
    replica = Replica(store)
    await replica.operations.refresh()
    assert replica.health.drained == frozenset()
    await replica.operations.reset("gpu")
    assert await store.call("HGET", layout.UPSTREAMS, "reset gpu") == b"1"


async def test_what_an_operator_sees(store: Store) -> None:
    transport = HttpTransport(keepalive=1.0)
    pool = VllmUpstream(
        "pool",
        base_urls=("http://127.0.0.1:1", "http://127.0.0.1:2"),
        api_key=None,
        local=True,
        clocks=Clocks(1.0, 1.0, 1.0, 1.0),
        transport=transport,
    )
    pool.pool.mark("http://127.0.0.1:2", away=True, queue_depth=3)
    replica = Replica(store, pool)
    replica.health.started(A)
    replica.fail(B)
    gpu, gpu2, served = replica.operations.states()
    assert (gpu.name, gpu.kind, gpu.local, gpu.error, gpu.drained) == ("gpu", "openai", True, None, False)
    assert (gpu.in_flight, gpu.max_concurrency, gpu.load) == (1, 4, 0.25)
    assert gpu.models == (
        ModelState("gpu/a", "open", 10.0, 0.0, None, "failing lately"),  # nothing listens there, for all models
        ModelState("gpu/b", "open", 10.0, 0.0, None, "failing lately"),
    )
    assert (gpu2.error, gpu2.models) == (
        "It is not there.",
        (ModelState("gpu2/a", "closed", 0.0, 0.0, None, None),),
    )
    assert (served.error, served.models) == (None, ())
    assert served.replicas == (
        ReplicaState("http://127.0.0.1:1", 0, 0, False),
        ReplicaState("http://127.0.0.1:2", 0, 3, True),
    )
    await pool.close()
