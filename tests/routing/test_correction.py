"""What is observed here corrects what was learned elsewhere, gently and in the right direction."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.verdict import TIER_NAMES, Verdict
from app.routing.correction import EXPECTED, MOST, Counts, corrected, shift, success

VERDICT = Verdict(0.4, 0.6, "code", "1")
counts = st.builds(Counts, st.floats(0, 1e6), st.floats(0, 1e6))


def test_without_observations_nothing_changes() -> None:
    """A fresh installation routes as it was measured."""
    assert corrected(VERDICT, {}) == VERDICT
    assert all(shift(Counts(), tier) == pytest.approx(0) for tier in TIER_NAMES)


def test_failures_raise_the_score_and_successes_lower_it() -> None:
    """Where local answers keep failing, the next ones must go to a stronger model."""
    key = ("code", "moderate")
    worse = corrected(VERDICT, {key: Counts(good=50, bad=50)})
    better = corrected(VERDICT, {key: Counts(good=500, bad=0)})
    assert worse.score > VERDICT.score > better.score
    assert worse.tier == "complex"


def test_what_is_learnt_stays_where_the_correction_looks_for_it() -> None:
    """Failures that raise a score to another tier would be counted there, and never again where they are read."""
    worse = corrected(VERDICT, {("code", "moderate"): Counts(good=50, bad=50)})
    assert (worse.tier, worse.learnt_tier, worse.uncorrected) == ("complex", "moderate", VERDICT.score)
    assert VERDICT.learnt_tier == VERDICT.tier


def test_other_kinds_of_work_are_left_alone() -> None:
    """Failing reviews say nothing about poems."""
    assert corrected(VERDICT, {("docs", "moderate"): Counts(bad=100), ("code", "simple"): Counts(bad=100)}) == VERDICT


def test_a_few_answers_do_not_outweigh_the_prior() -> None:
    """One unlucky answer must not move anybody to a paid model."""
    moved = corrected(VERDICT, {("code", "moderate"): Counts(good=0, bad=1)})
    assert moved.score - VERDICT.score < 0.08
    assert moved.tier == VERDICT.tier


@given(counts, st.floats(0, 1))
def test_the_correction_is_bounded_and_orderly(seen: Counts, score: float) -> None:
    """Whatever is counted, scores stay scores, and one more failure never lowers them."""
    verdict = replace(VERDICT, score=score)
    tier = verdict.tier
    assert 0 <= success(seen, tier) <= 1
    assert abs(shift(seen, tier)) <= MOST
    found = corrected(verdict, {("code", tier): seen})
    more = corrected(verdict, {("code", tier): replace(seen, bad=seen.bad + 1)})
    assert 0 <= found.score <= 1
    assert more.score >= found.score - 1e-12


def test_negative_counts_are_no_counts() -> None:
    """Fading counts may end a hair below zero."""
    assert success(Counts(-1e-9, -5.0), "simple") == pytest.approx(EXPECTED["simple"])
