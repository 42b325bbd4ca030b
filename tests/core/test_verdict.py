"""Tiers are words for scores, and dashboards, prices of mistakes and rollouts are kept by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.verdict import TASKS, TIERS, Verdict, tier_of

NAMES = [name for name, _ in TIERS]


@pytest.mark.parametrize(
    ("score", "tier"),
    [
        (0.0, "simple"),
        (0.2499, "simple"),
        (0.25, "moderate"),
        (0.5, "complex"),
        (0.75, "very_complex"),
        (1.0, "very_complex"),
    ],
)
def test_a_score_on_a_bound_belongs_to_the_tier_above(score: float, tier: str) -> None:
    assert tier_of(score) == Verdict(score, 0.9, "code", "v1").tier == tier


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_is_never_of_a_lower_tier(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert NAMES.index(tier_of(low)) <= NAMES.index(tier_of(high))


def test_a_score_beyond_the_scale_is_of_the_last_tier() -> None:
    """Rounding may put it there; a request must not fail of it."""
    assert tier_of(1.0000001) == NAMES[-1]


def test_tasks_are_those_that_the_configuration_may_name() -> None:
    assert len(set(TASKS)) == 9 and TASKS[-1] == "general"
