"""Evidence must not grow while nothing is wrong, however long and often one looks, and must grow fast when it is."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.routing.evidence import ENOUGH, RATES, Evidence


def failures_needed(share: float, batch: int = 20) -> int:
    """How many failures of the treatment, none of control's, one per batch, are enough."""
    evidence, failures = Evidence(), 0
    treatment = round(share * batch)
    while evidence.value < ENOUGH:
        evidence = evidence.after((0, 1), (batch - treatment, treatment))
        failures += 1
    return failures


@pytest.mark.parametrize(("share", "failures"), [(0.1, 5), (0.5, 13), (0.8, 38)])
def test_the_figures_that_are_promised(share: float, failures: int) -> None:
    assert failures_needed(share) == failures


def test_it_begins_at_one_and_nothing_bad_changes_nothing() -> None:
    evidence = Evidence()
    assert evidence.value == 1.0
    assert evidence.after((0, 0), (18, 2)) is evidence
    assert evidence.after((1, 0), (20, 0)) is evidence  # an arm without requests tells nothing
    assert evidence.after((0, 1), (0, 20)) is evidence


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10), st.integers(1, 10)), max_size=3),
)
def test_by_chance_alone_it_does_not_grow(
    control: int, treatment: int, values: list[float], before: list[tuple[float, int, int]]
) -> None:
    """Over all ways in which the same bad values may fall on the same requests, the mean is at most what it was. That
    is all that the promise of one false alarm in a thousand rests on."""
    evidence = Evidence()
    for bad, ours, theirs in before:
        evidence = evidence.after((0, bad), (ours, theirs))
    values = values[: control + treatment]
    after = list[float]()
    for places in permutations(range(control + treatment), len(values)):
        bad_treatment = sum(value for value, place in zip(values, places, strict=True) if place < treatment)
        bad_control = sum(value for value, place in zip(values, places, strict=True) if place >= treatment)
        after.append(evidence.after((bad_control, bad_treatment), (control, treatment)).value)
    assert sum(after) / len(after) <= evidence.value * (1 + 1e-9)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=20)
)
def test_it_stays_a_number(batches: list[tuple[float, float, int, int]]) -> None:
    """Infinity cannot be written as JSON, and would end the rollout for good."""
    evidence = Evidence()
    for bad_control, bad_treatment, control, treatment in batches:
        evidence = evidence.after((bad_control, bad_treatment), (control, treatment))
        assert math.isfinite(evidence.value) and evidence.value >= 0
        assert len(evidence.sums) == len(RATES)


def test_an_outage_of_both_arms_is_nobodys_fault() -> None:
    evidence = Evidence()
    for _ in range(100):
        evidence = evidence.after((18, 2), (18, 2))
        assert evidence.value <= 1.0


def test_trouble_that_comes_late_is_found_as_well() -> None:
    """A canary that was good for an hour may still break; the good hour must not speak for it for ever."""
    evidence = Evidence()
    for _ in range(200):
        evidence = evidence.after((1, 0), (18, 2))
    for _ in range(10):
        evidence = evidence.after((0, 1), (18, 2))
    assert evidence.value >= ENOUGH
