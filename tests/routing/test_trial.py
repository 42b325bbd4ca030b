"""When a rollout is taken back: in time where it does harm, and never where it does none.

The simulations have fixed seeds, so what they show stays as it is until somebody changes the rules.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.routing.trial import (
    FAILED,
    FIRST,
    LONE_MAX,
    RULES,
    SCORE,
    Ruling,
    Trial,
    folded,
    judged,
    mean,
    p95,
)

Draw = Callable[[random.Random], int]


def lognormal(rng: random.Random, median: float = 300, sigma: float = 1.0) -> int:
    return int(median * rng.lognormvariate(0, sigma))


def mostly_good(rng: random.Random, good: float = 0.9) -> int:
    return 900 if rng.random() < good else 200


@dataclass(frozen=True)
class Model:
    """What a model's answers are like."""

    fails: float = 0.0
    first: Draw = lognormal
    score: Draw = mostly_good

    def answers(self, rng: random.Random, count: int) -> dict[str, Sequence[int]]:
        failed = [int(rng.random() < self.fails) for _ in range(count)]
        well = [self.first(rng) for each in failed if not each]
        return {FAILED: failed, FIRST: well, SCORE: [self.score(rng) for _ in well]}


def simulate(
    seed: int,
    control: Model,
    treatment: Model,
    *,
    share: float = 0.1,
    seconds: int = 60,
    per_second: int = 20,
    at: int = 0,
) -> tuple[int, Ruling] | None:
    """The second in which it is taken back, if it is. Until second `at` the treatment is as good as control."""
    rng, trial = random.Random(seed), Trial()
    for second in range(seconds):
        treated = sum(rng.random() < share for _ in range(per_second))
        new = treatment if second >= at else control
        trial = folded(trial, control.answers(rng, per_second - treated), new.answers(rng, treated))
        ruling = judged(trial)
        if ruling.action in ("down", "stop"):
            return second + 1, ruling
    return None


# --- the two promises -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "fails"), [(0.1, 0.0), (0.1, 0.02), (0.5, 0.1)])
def test_a_canary_as_good_as_control_is_left_alone(share: float, fails: float) -> None:
    """In 100 runs of three minutes at most one false rollback, whether control fails never, sometimes or often; with
    latencies that have a heavy tail."""
    model = Model(fails)
    false = [found for seed in range(100) if (found := simulate(seed, model, model, share=share, seconds=180))]
    assert len(false) <= 1, false


@pytest.mark.parametrize(("share", "least"), [(0.1, 99), (0.2, 100), (0.5, 100), (0.8, 100)])
def test_a_canary_that_fails_a_tenth_is_taken_back_within_a_minute(share: float, least: int) -> None:
    """At 20 requests/s, whatever its share."""
    runs = [simulate(seed, Model(), Model(fails=0.1), share=share) for seed in range(100)]
    assert sum(run is not None for run in runs) >= least
    assert all("of its answers failed" in run[1].why or "in a row" in run[1].why for run in runs if run)


def test_one_that_breaks_after_five_good_minutes_is_taken_back_within_a_minute_too() -> None:
    runs = [simulate(seed, Model(), Model(fails=0.1), share=0.2, seconds=360, at=300) for seed in range(25)]
    assert all(run is not None and run[0] > 300 for run in runs)


# --- the other measures ---------------------------------------------------------------------------------------------


def test_one_twice_as_slow_is_taken_back() -> None:
    quick = partial(lognormal, sigma=0.3)
    slow = partial(lognormal, median=600, sigma=0.3)
    runs = [simulate(seed, Model(first=quick), Model(first=slow), seconds=120) for seed in range(20)]
    assert all(run is not None and "p95 to the first token" in run[1].why for run in runs)


def test_one_a_little_slower_is_left_alone() -> None:
    """The bound is half as slow again; a tenth slower may be what was paid for."""
    quick, slower = partial(lognormal, sigma=0.3), partial(lognormal, median=330, sigma=0.3)
    assert not any(simulate(seed, Model(first=quick), Model(first=slower), seconds=300) for seed in range(10))


def test_one_that_answers_worse_is_taken_back() -> None:
    worse = Model(score=partial(mostly_good, good=0.6))
    runs = [simulate(seed, Model(), worse, seconds=300, share=0.3) for seed in range(10)]
    assert all(run is not None and "its quality is" in run[1].why for run in runs)


# --- failures at once -----------------------------------------------------------------------------------------------


def answers(failed: str) -> dict[str, Sequence[int]]:
    return {FAILED: [int(each) for each in failed]}


def test_five_failures_in_a_row_end_it_at_once() -> None:
    trial = folded(Trial(), answers("0" * 45), answers("0011"))
    assert judged(trial).action == "hold"
    trial = folded(trial, answers("0" * 45), answers("111"))
    assert judged(trial) == Ruling("stop", "it failed 5 times in a row")


def test_a_success_in_between_begins_the_row_anew() -> None:
    trial = folded(folded(Trial(), {}, answers("1111")), {}, answers("01111"))
    assert trial.row == 4 and judged(trial).action == "hold"
    assert folded(trial, {}, answers("0")).row == 0


def test_without_any_control_five_failures_still_end_it() -> None:
    """A rollout to everybody has nobody to compare with."""
    assert judged(folded(Trial(), {}, answers("11111"))).action == "stop"


def test_an_outage_of_everything_ends_no_rollout() -> None:
    trial = folded(Trial(), answers("0" * 200), answers("0" * 20))
    for _ in range(50):
        trial = folded(trial, answers("1" * 10), answers("1" * 10))
        assert judged(trial).action == "hold"


def test_where_control_fails_often_a_longer_row_is_needed() -> None:
    """With every fifth answer failing for everybody, five in a row come by chance."""
    trial = folded(Trial(), answers("00001" * 40), answers("0"))
    trial = folded(trial, answers("00001" * 4), answers("1" * 9))
    assert judged(trial).action == "hold"
    trial = folded(trial, answers("00001"), answers("1" * 6))
    assert judged(trial).action == "stop"


# --- up -------------------------------------------------------------------------------------------------------------


def scored(value: int, count: int) -> dict[str, Sequence[int]]:
    return {SCORE: [value] * count}


def test_up_only_with_a_hundred_scored_answers_that_come_close_to_controls() -> None:
    trial = folded(Trial(), scored(900, 500), scored(870, 99))
    assert judged(trial) == Ruling("hold", "99 of 100 answers are scored")
    assert judged(folded(trial, scored(900, 30), scored(870, 1))).action == "up"


def test_not_up_while_quality_is_below_95_percent_of_controls() -> None:
    trial = folded(Trial(), scored(900, 100), scored(850, 100))
    assert judged(trial) == Ruling("hold", "it does worse than control, or may do so")


def test_not_up_with_one_breach_and_back_with_two() -> None:
    trial = folded(Trial(), scored(900, 100), scored(900, 100))
    assert judged(trial).action == "up"
    trial = folded(trial, answers("0" * 100), answers("1" * 9 + "0" + "1" * 90 + "0"))
    assert judged(trial).action == "hold"
    trial = folded(trial, answers("0" * 100), answers("10" * 50))
    assert judged(trial).action == "down"


def test_a_breach_that_does_not_last_is_forgotten() -> None:
    trial = folded(Trial(), answers("0" * 100), answers("10" * 50))
    assert trial.measure(FAILED).breaches == 1
    trial = folded(trial, answers("0" * 100), answers("0" * 500))
    assert trial.measure(FAILED).breaches == 0


# --- bookkeeping ----------------------------------------------------------------------------------------------------


def test_what_comes_in_drops_waits_for_enough_of_both_arms() -> None:
    """At one request a minute a batch of one would weigh nothing."""
    trial = Trial()
    for _ in range(19):
        trial = folded(trial, answers("0"), {})
    assert not trial.measure(FAILED).control
    assert len(folded(trial, {}, answers("1")).measure(FAILED).control) == 19


def test_an_arm_that_stays_alone_does_not_fill_the_memory() -> None:
    trial = folded(Trial(), {}, answers("0" * (LONE_MAX - 1)))
    assert len(trial.measure(FAILED).new_treatment) == LONE_MAX - 1
    trial = folded(trial, {}, answers("1"))
    assert not trial.measure(FAILED).new_treatment
    assert len(trial.measure(FAILED).treatment) == RULES[FAILED].keep
    assert trial.measure(FAILED).evidence.value == 1.0


def test_without_a_usual_first_token_nothing_is_slow() -> None:
    trial = folded(Trial(), {FIRST: [100] * 10}, {FIRST: [9_000] * 10})
    assert trial.measure(FIRST).evidence.value == 1.0 and trial.measure(FIRST).breaches == 0


def test_percentiles_and_means() -> None:
    assert p95(range(1, 101)) == 95
    assert p95([7]) == 7
    assert mean([]) == 0 and mean([1, 2]) == 1.5


VALUES = st.lists(st.integers(0, 10**7), max_size=30)
SEEN = st.fixed_dictionaries(
    {FAILED: st.lists(st.integers(0, 1), max_size=30), FIRST: VALUES, SCORE: st.lists(st.integers(0, 1_000))}
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(SEEN, SEEN), max_size=6))
def test_whatever_comes_can_be_judged(batches: list[tuple[dict[str, list[int]], dict[str, list[int]]]]) -> None:
    trial = Trial()
    for control, treatment in batches:
        trial = folded(trial, control, treatment)
        assert judged(trial).why
        for name, rule in RULES.items():
            measure = trial.measure(name)
            assert len(measure.control) <= rule.keep and len(measure.treatment) <= rule.keep
