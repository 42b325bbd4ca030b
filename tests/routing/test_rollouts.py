"""Who is in a rollout, what that does to a plan, and how its share moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.schema import Rollout
from app.core.card import Card
from app.core.plan import Candidate, Estimate, Plan
from app.routing.rollouts import (
    CONTROL,
    COOLDOWN_SECONDS,
    NOWHERE,
    TREATMENT,
    Assigned,
    Experiment,
    Live,
    Running,
    Step,
    arm_of,
    assign,
    experiment,
    moved,
    percent,
    placed,
    shadow_of,
    started,
    written,
)
from app.routing.trial import Action, Ruling
from tests.core.nouns import card, paid

UNITS = [f"session-{number}" for number in range(10_000)]
NEW = Running("new", 0.1, model="gpu/new")


def well(card: Card) -> str | None:
    return None


# --- arms -----------------------------------------------------------------------------------------------------------


def test_a_share_of_ten_percent_holds_over_ten_thousand_sessions() -> None:
    """Within noise: four standard deviations are 120 sessions."""
    treated = sum(arm_of(NEW, unit) == TREATMENT for unit in UNITS)
    assert abs(treated - 1_000) < 120


def test_two_replicas_give_a_session_the_same_arm() -> None:
    there = Running("new", 0.1, model="gpu/new")
    assert all(arm_of(NEW, unit) == arm_of(there, unit) for unit in UNITS[:1_000])


@given(st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_growing_a_share_only_adds_members(unit: str, one: float, two: float) -> None:
    """Nobody who has the new model loses it because more get it."""
    small, large = sorted((one, two))
    if arm_of(replace(NEW, share=small), unit) == TREATMENT:
        assert arm_of(replace(NEW, share=large), unit) == TREATMENT


def test_two_rollouts_do_not_share_their_members() -> None:
    other = Running("other", 0.1, model="gpu/other")
    both = sum(arm_of(NEW, unit) == arm_of(other, unit) == TREATMENT for unit in UNITS)
    assert 50 < both < 160


def test_a_request_is_the_treatment_of_one_rollout_or_control_of_all() -> None:
    one, two = Running("one", 0.5, model="gpu/a"), Running("two", 0.5, strategy="quality")
    for unit in UNITS[:200]:
        found = assign((one, two), unit)
        treated = [each for each in (one, two) if arm_of(each, unit) == TREATMENT]
        assert found == (Assigned(treated[0]) if treated else Assigned(control=(one, two)))
    assert assign((), "x") is NOWHERE


def test_who_named_a_strategy_is_in_no_experiment_on_strategies() -> None:
    running = (Running("s", 1.0, strategy="quality"), Running("t", 1.0, target_local=0.5))
    assert assign(running, "x", chosen=True) == Assigned()
    assert assign(running, "x") == Assigned(running[0])
    assert assign(running[1:], "x") == Assigned(running[1])


# --- plans ----------------------------------------------------------------------------------------------------------

OLD, CANARY, CLOUD = card("gpu/old"), card("gpu/new"), paid("cloud/big")
PLAN = Plan(
    (
        Candidate(OLD, "local, and it can do this"),
        Candidate(CLOUD, "it can do this"),
        Candidate(CANARY, "it can do this", estimate=Estimate(cost_nano=5)),
    ),
    "cost",
)


def test_the_treatments_model_comes_first_and_the_others_stand_behind_it() -> None:
    plan = placed(PLAN, Assigned(NEW), well)
    assert [one.card.id for one in plan.candidates] == ["gpu/new", "gpu/old", "cloud/big"]
    assert plan.candidates[0].reason == "rollout new" and plan.candidates[0].estimate == Estimate(cost_nano=5)
    assert plan.arm == "new:treatment"


def test_a_model_may_be_named_without_its_upstream() -> None:
    assert placed(PLAN, Assigned(replace(NEW, model="new")), well).candidates[0].card is CANARY


def test_control_keeps_its_order() -> None:
    plan = placed(PLAN, Assigned(control=(NEW, Running("s", 0.1, strategy="quality"))), well)
    assert plan.candidates == PLAN.candidates and plan.arm == "new:control,s:control"


@pytest.mark.parametrize("assigned", [Assigned(NEW), Assigned(control=(NEW,))], ids=["treatment", "control"])
def test_what_the_new_model_cannot_serve_is_in_no_arm(assigned: Assigned) -> None:
    """Else control would answer what the canary never gets, and they could not be compared."""
    without = replace(PLAN, candidates=PLAN.candidates[:2])
    assert placed(without, assigned, well) is without
    assert placed(PLAN, assigned, lambda card: "throttled" if card is CANARY else None) is PLAN
    assert placed(PLAN, assigned, well, movable=False) is PLAN
    named = replace(PLAN, strategy="named")
    assert placed(named, assigned, well) is named


def test_a_strategy_needs_nothing_of_the_plan() -> None:
    plan = placed(PLAN, Assigned(Running("s", 0.1, strategy="quality")), well)
    assert plan.candidates == PLAN.candidates and plan.arm == "s:treatment"
    assert placed(PLAN, NOWHERE, well) is PLAN


def test_a_shadow_is_nobodys_treatment_and_draws_requests() -> None:
    shadow = Running("dark", 0.2, shadow=True, model="gpu/new")
    assert {arm_of(shadow, unit) for unit in UNITS[:100]} == {CONTROL}
    drawn = sum(shadow_of((shadow,), "other:control,dark:control", unit) is shadow for unit in UNITS)
    assert abs(drawn - 2_000) < 160
    assert shadow_of((NEW, shadow), None, "x") is None
    assert shadow_of((replace(shadow, share=1.0),), "dark2:control", "x") is None
    assert shadow_of((replace(NEW, share=1.0),), "new:control", "x") is None


# --- what somebody wrote --------------------------------------------------------------------------------------------


def rollout(**fields: object) -> Rollout:
    return Rollout.model_validate({"kind": "canary", "share": "10%", "to": {"model": "gpu/new"}, **fields})


@pytest.mark.parametrize(
    ("fields", "ladder"),
    [
        ({}, (Step(0.1),)),
        ({"steps": True, "share": "100%"}, (Step(0.2, True), Step(0.5), Step(0.8), Step(1.0))),
        ({"steps": True, "share": "80%"}, (Step(0.2, True), Step(0.5), Step(0.8))),
        ({"steps": True}, (Step(0.1),)),
        ({"steps": ["1%", "2%"]}, (Step(0.01), Step(0.02), Step(0.1))),
        ({"kind": "shadow", "steps": ["1%"]}, (Step(0.01, True), Step(0.1, True))),
    ],
)
def test_steps_lead_to_the_share(fields: dict[str, object], ladder: tuple[Step, ...]) -> None:
    assert experiment("new", rollout(**fields)).ladder == ladder


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"steps": True, "share": "80%", "dwell": 60.0, "rollback": False},
        {"kind": "shadow", "steps": ["1%", "2.5%"]},
        {"kind": "ab", "to": {"strategy": "quality"}},
        {"kind": "ab", "to": {"target_local": 0.0}, "share": "0%"},
    ],
)
def test_what_is_shown_can_be_put_back(fields: dict[str, object]) -> None:
    """An operator changes one thing of what GET shows and sends it."""
    wanted = experiment("new", rollout(**fields))
    assert experiment("new", Rollout.model_validate(written(wanted))) == wanted


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0%"), (0.1, "10%"), (1, "100%"), (0.025, "2.5%"), (0.000001, "0.0001%")]
)
def test_shares_for_people(share: float, text: str) -> None:
    assert percent(share) == text


# --- moving ---------------------------------------------------------------------------------------------------------

STEPPED = experiment("new", rollout(steps=True, share="80%", dwell=60.0))


def live(step: int = 0, wanted: Experiment = STEPPED, **fields: Any) -> Live:
    return replace(Live(wanted, 1_000.0, step=step), **fields)


def ruled(action: Action) -> Ruling:
    return Ruling(action, "because")


def test_a_step_up_needs_its_time() -> None:
    assert moved(live(), ruled("up"), 1_059) == live()
    up = moved(live(), ruled("up"), 1_060)
    assert (up.now, up.since, up.serial, up.reason) == (Step(0.5), 1_060, 1, "because")
    on_top = live(2)
    assert moved(on_top, ruled("up"), 9_999) is on_top


def test_a_step_back_cools_down_before_the_next_step_up() -> None:
    back = moved(live(2), ruled("down"), 2_000)
    assert (back.now, back.status, back.cooled_at) == (Step(0.5), "running", 2_000 + COOLDOWN_SECONDS)
    assert moved(back, ruled("up"), 2_000 + COOLDOWN_SECONDS - 1) is back
    assert moved(back, ruled("up"), 2_000 + COOLDOWN_SECONDS).step == 2


@pytest.mark.parametrize(("step", "action"), [(0, "down"), (0, "stop"), (2, "stop")])
def test_at_the_foot_or_after_hard_failure_it_is_over_until_armed_by_hand(step: int, action: Action) -> None:
    over = moved(live(step), ruled(action), 2_000)
    assert (over.status, over.now, over.running, over.reason) == ("rolled_back", Step(0.0), None, "because")
    for again in get_args(Action):
        assert moved(over, ruled(again), 1e9) is over


def test_without_rollback_it_stays_whatever_happens() -> None:
    stays = live(1, replace(STEPPED, rollback=False))
    assert moved(stays, ruled("stop"), 2_000) is stays and moved(stays, ruled("down"), 2_000) is stays
    assert moved(stays, ruled("hold"), 2_000) is stays


def test_armed_again_it_begins_at_the_first_step() -> None:
    over = moved(live(2, serial=7), ruled("stop"), 2_000)
    again = started(over.experiment, over, 3_000, "an operator said so", None)
    assert (again.status, again.now, again.since, again.serial) == ("running", Step(0.2, True), 3_000, over.serial + 1)


def test_a_change_beside_the_steps_keeps_the_step() -> None:
    """Switching rollback off at 50 % must not send everybody back to 20 %."""
    changed = started(replace(STEPPED, rollback=False), live(1), 3_000, "x", "o")
    assert (changed.step, changed.since, changed.serial, changed.origin) == (1, 1_000, 1, "o")


def test_a_share_of_nothing_switches_it_off() -> None:
    off = started(replace(STEPPED, share=0.0), live(1), 3_000, "x", None)
    assert (off.status, off.running, off.step) == ("off", None, 0)
    assert started(STEPPED, off, 4_000, "x", None).now == Step(0.2, True)
    assert started(STEPPED, None, 4_000, "x", None).serial == 4_000


def test_requests_meet_the_step_of_the_moment() -> None:
    assert live().running == Running("new", 0.2, True, "gpu/new")
    assert live(1).running == Running("new", 0.5, False, "gpu/new")
