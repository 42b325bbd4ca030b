"""Rollouts over several gateways and a real store: who does harm is taken back everywhere, once, and stays back."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.config.schema import Rollout
from app.core.clock import ManualClock
from app.core.errors import Overloaded, StoreUnavailable, Unprocessable
from app.core.plan import Plan
from app.core.record import Attempt, Record
from app.gateway.audit import Audit
from app.gateway.rollback import HELD_MAX, Rollouts, has_failed
from app.routing.rollouts import TREATMENT, Assigned, Running, Step, arm_of
from app.routing.trial import FAILED, FIRST, SCORE
from app.store import layout
from app.store.address import Address
from app.store.broadcast import Broadcast
from app.store.client import Store
from tests.core.nouns import card
from tests.gateway.fakes import planned
from tests.store.live import eventually

OK = Attempt("gpu/new", "gpu", "ok", None, 0.1)
RECORD = Record(
    request_id="r",
    parent_id=None,
    root_id="r",
    depth=0,
    endpoint="chat",
    model_requested="auto",
    stream=True,
    status=200,
    started_at=0.0,
    seconds=1.0,
    overhead_seconds=0.0,
    attempts=(OK,),
    first_token_seconds=0.25,
)


def rollout(**fields: Any) -> Rollout:
    return Rollout.model_validate({"kind": "canary", "share": "10%", "to": {"model": "gpu/new"}, **fields})


def record(arm: str | None, *, failed: bool = False, first: float | None = 0.25) -> Record:
    attempts = (replace(OK, outcome="server", blame="upstream"), OK) if failed else (OK,)
    plan: Plan = replace(planned(card("gpu/new")), arm=arm)
    return replace(RECORD, plan=plan, attempts=attempts, first_token_seconds=first)


class Replica:
    """One gateway's part. Whose turn it is does not depend on time here."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shares: dict[tuple[str, str], float] = {}
        self.audit = Audit(store, ManualClock())
        self.rollouts = Rollouts(store, self.audit, lambda name, arm, share: self.shares.update({(name, arm): share}))

    def answers(self, arm: str, count: int, failed: int = 0) -> None:
        for number in range(count):
            self.rollouts.observe(record(arm, failed=number < failed))

    async def tick(self) -> None:
        await self.store.call("DEL", layout.ROLLOUTS_TURN)
        await self.rollouts.tick()

    async def actions(self) -> list[tuple[str, str, str]]:
        return [(line["actor"], line["action"], line["subject"]) for line in await self.audit.entries()]


@pytest.fixture
async def here(store: Store) -> Replica:
    return Replica(store)


@contextlib.asynccontextmanager
async def another(valkey: Path) -> AsyncIterator[Replica]:
    store = Store(Address(path=str(valkey)))
    await store.open()
    try:
        yield Replica(store)
    finally:
        await store.aclose()


# --- harm is undone -------------------------------------------------------------------------------------------------


async def test_a_canary_that_fails_a_tenth_is_taken_back_within_a_minute_of_traffic(
    here: Replica, valkey: Path
) -> None:
    """20 requests/s, spread over two gateways that each see too little to know; both stop sending it anything."""
    async with another(valkey) as there:
        await here.rollouts.adopt({"new": rollout()})
        await there.rollouts.refresh()
        rng = random.Random(7)
        for second in range(60):
            for number in range(20):
                replica = (here, there)[number % 2]
                assigned = replica.rollouts.assign(f"session {second * 20 + number}")
                treated = assigned.treatment is not None
                arm = f"new:{'treatment' if treated else 'control'}"
                replica.rollouts.observe(record(arm, failed=treated and rng.random() < 0.1))
            await there.rollouts.tick()
            await here.tick()
            if not here.rollouts.running:
                break
        assert here.rollouts.running == ()
        await there.rollouts.refresh()
        assert there.rollouts.running == ()
        assert here.shares[("new", "treatment")] == there.shares[("new", "treatment")] == 0
    assert (await here.actions())[0] in (("tierway", "rollout.down", "new"), ("tierway", "rollout.stop", "new"))
    live, _ = (await here.rollouts.standings())[0]
    assert live.status == "rolled_back" and "failed" in live.reason


async def test_five_failures_at_once_stop_it(here: Replica) -> None:
    await here.rollouts.adopt({"new": rollout(steps=True, share="80%")})
    here.answers("new:control", 45)
    here.answers("new:treatment", 5, failed=5)
    await here.tick()
    assert here.rollouts.running == ()
    assert (await here.actions())[0] == ("tierway", "rollout.stop", "new")


async def test_one_as_good_as_control_is_left_alone(here: Replica) -> None:
    await here.rollouts.adopt({"new": rollout()})
    for _ in range(20):
        here.answers("new:control", 45, failed=1)
        here.answers("new:treatment", 5)
        await here.tick()
    assert [one.name for one in here.rollouts.running] == ["new"]
    (standing,) = await here.rollouts.standings()
    assert len(standing.trial.measure(FAILED).treatment) == 100
    assert standing.trial.measure(FIRST).treatment[-1] == 250


async def test_without_rollback_it_is_measured_and_stays(here: Replica) -> None:
    await here.rollouts.adopt({"new": rollout(rollback=False)})
    here.answers("new:control", 45)
    here.answers("new:treatment", 50, failed=50)
    await here.tick()
    assert len(here.rollouts.running) == 1
    assert (await here.rollouts.standings())[0].trial.row == 50


async def test_only_one_gateway_has_the_turn_and_weighs_what_all_saw(here: Replica, valkey: Path) -> None:
    async with another(valkey) as there:
        await here.rollouts.adopt({"new": rollout()})
        await there.rollouts.refresh()
        here.answers("new:control", 30)
        there.answers("new:treatment", 3)
        await here.tick()
        await there.rollouts.tick()  # told, and weighed by nobody yet
        assert not (await here.rollouts.standings())[0].trial.measure(FAILED).treatment
        await here.tick()
    assert len((await here.rollouts.standings())[0].trial.measure(FAILED).treatment) == 3


async def test_two_that_decide_at_once_take_one_step(here: Replica, valkey: Path) -> None:
    """A turn may last longer than was thought; then the store says who was first."""
    async with another(valkey) as there:
        await here.rollouts.adopt({"new": rollout(steps=["1%", "50%"], share="80%")})
        live, before = (await here.rollouts._read())["new"]
        high = replace(live, step=2)
        trial = (await here.rollouts.standings())[0].trial
        seen = {f"new|{live.serial}|control|failed".encode(): b"0," * 45}
        seen[f"new|{live.serial}|treatment|failed".encode()] = b"1," * 5
        await asyncio.gather(*(one.rollouts._decide(high, before, trial, seen, 5) for one in (here, there)))
    assert [action for _, action, _ in await here.actions()] == ["rollout.stop", "rollout.start"]


# --- steps ----------------------------------------------------------------------------------------------------------


async def test_a_rollout_climbs_by_scored_answers_and_begins_each_step_afresh(here: Replica) -> None:
    await here.rollouts.adopt({"new": rollout(steps=["5%"], dwell=0.001)})
    assert here.shares[("new", "treatment")] == 0.05
    await asyncio.sleep(1.05)  # the store's clock tells whole seconds
    for _ in range(100):
        here.rollouts.scored("new:control", 0.9)
        here.rollouts.scored("new:treatment", 0.88)
    await here.tick()
    assert (await here.actions())[0] == ("tierway", "rollout.up", "new")
    assert here.shares == {("new", "treatment"): 0.1, ("new", "control"): 0.9, ("new", "shadow"): 0}
    live, trial = (await here.rollouts.standings())[0]
    assert live.now == Step(0.1) and not trial.measures


async def test_a_shadow_has_a_share_of_its_own(here: Replica) -> None:
    await here.rollouts.adopt({"dark": rollout(kind="shadow", share="20%")})
    assert here.shares == {("dark", "treatment"): 0, ("dark", "control"): 1, ("dark", "shadow"): 0.2}
    assert here.rollouts.running == (Running("dark", 0.2, True, "gpu/new"),)


# --- the file and the operator --------------------------------------------------------------------------------------


async def test_a_restart_does_not_arm_what_was_rolled_back(here: Replica, valkey: Path) -> None:
    await here.rollouts.adopt({"new": rollout()})
    here.answers("new:control", 45)
    here.answers("new:treatment", 5, failed=5)
    await here.tick()
    async with another(valkey) as there:
        await there.rollouts.adopt({"new": rollout()})
        assert list(there.rollouts.running) == []
        await there.rollouts.adopt({"new": rollout(share="20%")})  # somebody wrote another one
        assert [one.share for one in there.rollouts.running] == [0.2]
        await there.rollouts.adopt({})
        assert list(there.rollouts.running) == []
        assert await there.rollouts.standings() == ()
        assert there.shares[("new", "control")] == 0
    assert [action for _, action, _ in await here.actions()] == [
        "rollout.end",
        "rollout.start",
        "rollout.stop",
        "rollout.start",
    ]


async def test_an_operator_arms_it_again_and_what_was_measured_before_does_not_count(here: Replica) -> None:
    await here.rollouts.adopt({"new": rollout()})
    here.answers("new:control", 45)
    here.answers("new:treatment", 5, failed=5)
    await here.tick()
    here.answers("new:treatment", 5, failed=5)  # those that were still under way
    standing = await here.rollouts.put("new", {"share": "5%"})
    assert standing.live.status == "running" and standing.live.now == Step(0.05)
    assert standing.live.experiment.model == "gpu/new"
    await here.tick()
    assert [one.share for one in here.rollouts.running] == [0.05]
    await here.rollouts.adopt({"new": rollout()})
    assert [one.share for one in here.rollouts.running] == [0.05], "the file said so before; the operator said so later"
    await here.rollouts.put("new", {"share": "0%"})
    assert here.rollouts.running == ()


async def test_what_was_seen_before_a_change_does_not_count_after_it(here: Replica) -> None:
    await here.rollouts.adopt({"new": rollout(), "other": rollout()})
    here.answers("new:treatment", 4, failed=4)
    here.answers("other:treatment", 1)
    await here.rollouts.put("new", {"share": "20%"})
    here.answers("new:treatment", 1, failed=1)
    await here.tick()
    assert len(here.rollouts.running) == 2
    assert [trial.row for _, trial in await here.rollouts.standings()] == [1, 0]


async def test_a_rollout_of_an_operator_outlives_a_file_that_does_not_name_it(here: Replica) -> None:
    await here.rollouts.put("hand", {"kind": "ab", "share": "50%", "to": {"strategy": "quality"}})
    await here.rollouts.adopt({"new": rollout()})
    assert [one.name for one in here.rollouts.running] == ["hand", "new"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({}, "kind"),
        ({"kind": "canary", "share": "10%", "to": {}}, "to"),
        ({"kind": "canary", "share": 0.1, "to": {"strategy": "cost"}}, "share"),
        ({"kind": "shadow", "share": "10%", "to": {"strategy": "cost"}}, None),
        ({"kind": "canary", "share": "10%", "to": {"strategy": "cost"}, "steps": ["50%", "20%"]}, "steps"),
    ],
)
async def test_what_makes_no_sense_changes_nothing(here: Replica, change: dict[str, Any], param: str | None) -> None:
    with pytest.raises(Unprocessable) as caught:
        await here.rollouts.put("new", change)
    assert caught.value.param == param
    assert await here.rollouts.standings() == ()


async def test_a_change_that_is_never_first_is_told_so(here: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    async def beaten(*args: object) -> bool:
        return False

    monkeypatch.setattr(here.audit, "change", beaten)
    with pytest.raises(Overloaded):
        await here.rollouts.put("new", {"kind": "ab", "share": "50%", "to": {"strategy": "quality"}})


async def test_a_change_reaches_the_other_gateways(here: Replica, valkey: Path) -> None:
    async with another(valkey) as there:
        broadcast = Broadcast(there.store, poll=0.2)
        there.rollouts.follow(broadcast)
        async with broadcast.running():
            await here.rollouts.put("new", {"kind": "canary", "share": "10%", "to": {"model": "gpu/new"}})
            await eventually(lambda: bool(there.rollouts.running))
        units = [f"session {number}" for number in range(300)]
        assert [here.rollouts.assign(unit) for unit in units] == [there.rollouts.assign(unit) for unit in units]
        treated = {unit for unit in units if there.rollouts.assign(unit).treatment}
        assert treated == {unit for unit in units if arm_of(here.rollouts.running[0], unit) == TREATMENT}


# --- what is hostile or away ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"experiment": {}}'])
async def test_a_state_that_cannot_be_read_does_not_run(here: Replica, text: bytes) -> None:
    await here.rollouts.adopt({"new": rollout()})
    await here.store.call("HSET", layout.ROLLOUTS, "bad", text, b"\xff", text)
    await here.store.call("HSET", layout.TRIALS, "new", text)
    await here.rollouts.refresh()
    here.answers("new:control", 1)
    await here.tick()
    assert [one.name for one in here.rollouts.running] == ["new"]


async def test_a_state_that_contradicts_itself_does_not_run(here: Replica) -> None:
    await here.rollouts.adopt({"new": rollout()})
    stored = await here.store.call("HGET", layout.ROLLOUTS, "new")
    await here.store.call("HSET", layout.ROLLOUTS, "new", orjson.dumps({**orjson.loads(stored), "step": 7}))
    await here.store.call("HSET", layout.ROLLOUTS, "other", stored)
    await here.rollouts.refresh()
    assert here.rollouts.running == ()


async def test_values_that_are_no_numbers_are_passed_over(here: Replica) -> None:
    await here.rollouts.adopt({"new": rollout()})
    serial = (await here.rollouts.standings())[0].live.serial
    await here.store.call("HSET", layout.ROLLOUTS_SEEN, f"new|{serial}|control|failed", b"0,x,,-1,1," + b"0," * 20)
    here.answers("new:treatment", 2)
    await here.tick()
    assert len((await here.rollouts.standings())[0].trial.measure(FAILED).control) == 22


async def test_all_it_writes_belongs_to_a_partition_and_lives_as_long(here: Replica) -> None:
    await here.rollouts.adopt({"new": rollout()})
    here.answers("new:control", 1)
    await here.tick()
    here.answers("new:control", 1)
    await here.rollouts.tick()
    keys = {key.decode() for key in await here.store.call("KEYS", "*")}
    assert {layout.ROLLOUTS, layout.TRIALS, layout.ROLLOUTS_SEEN, layout.ROLLOUTS_TURN, layout.AUDIT} <= keys
    for key in keys:
        assert layout.fault_of(key, await here.store.call("TTL", key)) is None


async def test_without_a_store_shares_stay_and_it_goes_on_afterwards(here: Replica) -> None:
    ticks = 0

    async def sleep(seconds: float) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 1:
            await here.store.aclose()
        if ticks == 4:
            raise asyncio.CancelledError

    await here.rollouts.adopt({"new": rollout()})
    here.answers("new:control", 1)
    with pytest.raises(asyncio.CancelledError):
        await here.rollouts.run(sleep)
    assert len(here.rollouts.running) == 1
    with pytest.raises(StoreUnavailable):
        await here.rollouts.refresh()


async def test_a_later_word_about_an_answer_counts_where_it_was_given(here: Replica) -> None:
    """What somebody says of an answer from before a step tells nothing of the step."""
    await here.rollouts.adopt({"new": rollout()})
    ((live, _),) = (await here.rollouts._read()).values()
    here.rollouts.scored("new:treatment", 0.3, live.since + 1)
    here.rollouts.scored("new:treatment", 0.1, live.since - 1)
    assert here.rollouts._held == {("new", "treatment", SCORE): [300]}


async def test_what_waits_for_a_tick_is_bounded(here: Replica) -> None:
    await here.rollouts.adopt({"new": rollout()})
    for _ in range(HELD_MAX + 5):
        here.rollouts.scored("new:control", 2.0)
    assert here.rollouts._held == {("new", "control", SCORE): [1_000] * HELD_MAX}


async def test_without_rollouts_a_request_costs_nothing(here: Replica) -> None:
    await here.rollouts.refresh()
    assert here.rollouts.assign("x") == Assigned()
    here.rollouts.observe(record("gone:control"))
    here.rollouts.scored(None, 0.5)
    assert here.rollouts._held == {}
    await here.rollouts.tick()
    assert await here.store.call("EXISTS", layout.ROLLOUTS_TURN) == 0


# --- records --------------------------------------------------------------------------------------------------------


async def test_a_record_counts_for_every_arm_it_is_in(here: Replica) -> None:
    await here.rollouts.adopt({"a": rollout(), "b": rollout()})
    here.rollouts.observe(record("a:control,b:control,c:control,:x,b:other,b", first=None))
    here.rollouts.observe(record("b:treatment", failed=True))
    here.rollouts.observe(record(None))
    here.rollouts.observe(RECORD)
    here.rollouts.observe(replace(record("a:control"), error_code="client_gone"))
    assert here.rollouts._held == {
        ("a", "control", FAILED): [0],
        ("b", "control", FAILED): [0],
        ("b", "treatment", FAILED): [1],
        ("b", "treatment", FIRST): [250],
    }


@pytest.mark.parametrize(
    ("attempts", "error_code", "failed"),
    [
        ([("ok", None)], None, False),
        ([("server", "upstream"), ("ok", None)], None, True),  # another one stepped in, or it did itself
        ([("broken", "upstream")], "upstream_failed", True),
        ([("internal_error", "us")], "internal_error", True),
        ([], "internal_error", True),
        ([("throttled", "upstream"), ("ok", None)], None, False),
        ([("left", "caller")], "client_gone", None),
        ([("invalid_value", "caller")], "invalid_value", None),
        ([], "no_upstream_available", None),
    ],
)
def test_whose_failure_counts(
    attempts: list[tuple[str, str | None]], error_code: str | None, failed: bool | None
) -> None:
    made = tuple(replace(OK, outcome=outcome, blame=blame) for outcome, blame in attempts)
    assert has_failed(replace(RECORD, attempts=made, error_code=error_code)) is failed
