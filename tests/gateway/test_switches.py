"""Flags at run time: a feature that cannot be switched off in a hurry, or that comes back by itself, is an outage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.config.load import load
from app.config.settings import FlagSettings
from app.core.caller import Caller
from app.core.clock import ManualClock
from app.core.errors import NotFound, Unprocessable
from app.gateway.audit import Audit
from app.gateway.switches import Switches
from app.gateway.versions import Versions
from app.store.client import Store

CALLER = Caller(key_id="k1", name="ci", tenant="acme")


class Replica:
    """A gateway's flags, under an environment."""

    def __init__(self, store: Store, **environ: str) -> None:
        self.store = store
        self.versions = Versions(store, Audit(store, ManualClock()), ManualClock())
        self.shown: dict[str, float] = {}
        settings: FlagSettings = load(environ).flags
        self.switches = Switches(self.versions, settings, self.shown.__setitem__)
        self.versions.listeners.append(self.switches.apply)

    async def open(self) -> Replica:
        await self.versions.refresh()
        await self.switches.open()
        return self

    async def on(self, name: str, unit: str = "u", **who: Any) -> bool:
        await self.versions.refresh()
        return self.switches.flags.decide(unit, **who)[name]


async def started(store: Store, environ: Mapping[str, str] | None = None) -> Replica:
    return await Replica(store, **(environ or {})).open()


async def test_a_change_counts_everywhere_until_it_is_taken_back(store: Store) -> None:
    here, there = await started(store), await started(store)
    switch = await here.switches.put("STREAMING", 0.0)
    assert (switch.share, switch.start, switch.locked) == (0.0, 1.0, False)
    assert not await here.on("STREAMING") and not await there.on("STREAMING")
    assert here.shown["STREAMING"] == there.shown["STREAMING"] == 0.0
    late = await started(store)
    assert not await late.on("STREAMING"), "who starts later knows too"
    await there.switches.unset("streaming")
    assert await here.on("STREAMING") and await late.on("STREAMING")


@pytest.mark.parametrize(("scope", "who"), [("agent", "qe"), ("key", "ci"), ("key", "k1"), ("tenant", "acme")])
async def test_a_change_may_be_for_some_alone(store: Store, scope: str, who: str) -> None:
    replica = await started(store)
    await replica.switches.put("SESSIONS", 0.0, scope, who)
    assert not await replica.on("SESSIONS", caller=CALLER, agent="qe")
    assert await replica.on("SESSIONS", caller=Caller(key_id="k2", name="x", tenant="y"), agent="other")
    (change,) = next(each for each in replica.switches.states() if each.name == "SESSIONS").changes
    assert (change.scope, change.who, change.share, change.counts) == (scope, who, 0.0, True)
    await replica.switches.unset("SESSIONS", scope, who)
    assert await replica.on("SESSIONS", caller=CALLER, agent="qe")


async def test_what_was_changed_counts_before_the_file(store: Store) -> None:
    replica = await started(store)
    settings = FlagSettings()
    overrides = settings.overrides.model_validate({"agent": {"qe": {"streaming": False, "sessions": False}}})
    replica.switches.configure(FlagSettings(overrides=overrides))
    assert not await replica.on("STREAMING", agent="qe")
    await replica.switches.put("STREAMING", 1.0, "agent", "qe")
    assert await replica.on("STREAMING", agent="qe") and not await replica.on("SESSIONS", agent="qe")


async def test_a_share_grows_by_adding_units(store: Store) -> None:
    replica = await started(store)
    units = [f"session-{number}" for number in range(4_000)]
    await replica.switches.put("SHADOW", 0.1)
    tenth = {unit for unit in units if replica.switches.flags.decide(unit)["SHADOW"]}
    await replica.switches.put("SHADOW", 0.2)
    fifth = {unit for unit in units if replica.switches.flags.decide(unit)["SHADOW"]}
    assert 320 < len(tenth) < 480 and 690 < len(fifth) < 910 and tenth < fifth


async def test_a_later_word_of_the_environment_wins(store: Store) -> None:
    """`kubectl set env` must work as the way back, whatever somebody put months ago; and pods that still have
    the former environment keep to what was put until they are replaced."""
    old = await started(store)
    await old.switches.put("MULTI_MODEL_ROUTER", 0.5)
    await old.switches.put("MULTI_MODEL_ROUTER", 1.0, "agent", "qe")
    new = await started(store, {"FEATURE_MULTI_MODEL_ROUTER": "false"})
    assert not await new.on("MULTI_MODEL_ROUTER") and not await new.on("MULTI_MODEL_ROUTER", agent="qe")
    assert old.switches.flags.shares["MULTI_MODEL_ROUTER"] == 0.5
    await old.versions.refresh()
    assert old.switches.flags.shares["MULTI_MODEL_ROUTER"] == 0.5, "its time is not over yet"
    again = await started(store)
    assert await again.on("MULTI_MODEL_ROUTER"), "and what the environment once overtook does not come back with it"
    await new.switches.put("MULTI_MODEL_ROUTER", 1.0)
    assert await new.on("MULTI_MODEL_ROUTER"), "a new word of an operator counts again"


async def test_nothing_changes_a_locked_flag(store: Store) -> None:
    environ = {"FEATURE_STREAMING": "true", "FEATURE_LOCK": "true"}
    locked, free = await started(store, environ), await started(store)
    with pytest.raises(Unprocessable, match="FEATURE_LOCK"):
        await locked.switches.put("STREAMING", 0.0)
    await free.switches.put("STREAMING", 0.0)
    await free.switches.put("STREAMING", 0.0, "agent", "qe")
    await free.switches.put("SESSIONS", 0.0)
    assert await locked.on("STREAMING", agent="qe")
    assert not await locked.on("SESSIONS"), "the environment says nothing about this one"
    states = {each.name: each for each in locked.switches.states()}
    assert states["STREAMING"].locked and not any(change.counts for change in states["STREAMING"].changes)


async def test_restored_changes_count_whatever_the_environment_said_meanwhile(store: Store) -> None:
    old = await started(store)
    await old.switches.put("SESSIONS", 0.25)
    changes = old.versions.current.flags
    new = await started(store, {"FEATURE_SESSIONS": "50%"})
    await new.versions.change("x", "y", lambda last: last.model_copy(update={"flags": new.switches.restored(changes)}))
    assert new.switches.flags.shares["SESSIONS"] == 0.25


async def test_what_is_no_flag_is_told_its_nearest(store: Store) -> None:
    replica = await started(store)
    with pytest.raises(NotFound, match="did you mean STREAMING"):
        await replica.switches.put("STREAMIN", 1.0)
    with pytest.raises(NotFound):
        await replica.switches.unset("zzz")
    assert (await replica.switches.put("FEATURE_STREAMING", 0.0)).name == "STREAMING"


async def test_flags_and_scopes_of_a_later_release_are_passed_over(store: Store) -> None:
    text = (
        b'{"number": 1, "flags": {"LATER": {"value": 0, "over": 1}, "STREAMING planet mars": {"value": 0, "over": 1},'
        b' "SESSIONS": {"value": 0, "over": 1}}}'
    )
    await store.call("HSET", "{tierway}:runtime", "1", text)
    replica = await started(store)
    assert await replica.on("STREAMING") and not await replica.on("SESSIONS")
    assert set(replica.switches.restored(replica.versions.current.flags)) == {"STREAMING planet mars", "SESSIONS"}
