"""Going back: everything that was changed stands again as it did, in one step, on every gateway."""

from __future__ import annotations

import pytest

from app.config.load import load
from app.core.clock import ManualClock
from app.core.errors import NotFound
from app.gateway.runtime import Runtime
from app.gateway.versions import Version
from app.store.broadcast import Broadcast
from app.store.client import Store
from tests.store.live import eventually


def runtime(store: Store, **environ: str) -> Runtime:
    return Runtime(store, ManualClock(), load(environ).flags, lambda name, share: None)


async def test_a_change_is_heard_while_the_broadcast_runs(store: Store) -> None:
    here, there = runtime(store), runtime(store)
    await here.open()
    broadcast = Broadcast(store, poll=0.1)
    await there.open()
    there.versions.follow(broadcast)
    async with broadcast.running():
        await here.switches.put("STREAMING", 0.0)
        await eventually(lambda: there.switches.flags.shares["STREAMING"] == 0.0)


async def test_a_listener_hears_what_counts_and_what_comes_until_another_takes_its_place(store: Store) -> None:
    """What gateways share would else be configured by the former one too, from an older file."""
    one, former, later = runtime(store), list[Version](), list[Version]()
    one.tell(former.append)
    await one.switches.put("STREAMING", 0.0)
    one.tell(later.append)
    await one.switches.put("STREAMING", 1.0)
    assert [version.number for version in former] == [0, 1] and [version.number for version in later] == [1, 2]


async def test_an_earlier_version_comes_back(store: Store) -> None:
    one = runtime(store)
    await one.switches.put("STREAMING", 0.0)
    await one.versions.change("x", "y", lambda last: last.model_copy(update={"settings": {"strategy": "quality"}}))
    await one.switches.put("SESSIONS", 0.5, "agent", "qe")
    restored = await one.restore(1)
    assert restored.number == 4 and restored.settings == {} and set(restored.flags) == {"STREAMING"}
    assert one.switches.flags.decide("u", agent="qe")["SESSIONS"] and not one.switches.flags.decide("u")["STREAMING"]
    beginning = await one.restore(0)
    assert not beginning.flags and one.switches.flags.decide("u")["STREAMING"]
    forward = await one.restore(3)
    assert forward.settings == {"strategy": "quality"} and len(forward.flags) == 2, "and back again"
    with pytest.raises(NotFound):
        await one.restore(99)
