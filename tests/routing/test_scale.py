"""If the scale changed an order, a harder request would go to a smaller model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.routing.scale import KNOTS, probability_of, score_of

SHARES = st.floats(0.0, 1.0)


@given(SHARES, SHARES)
def test_the_harder_stays_the_harder(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0.0 <= score_of(low) <= score_of(high) <= 1.0


@given(SHARES)
def test_a_score_still_tells_its_probability(probability: float) -> None:
    """Else nobody could check whether it is calibrated."""
    assert probability_of(score_of(probability)) == pytest.approx(probability, abs=1e-12)


def test_the_ends_and_the_middle_stay() -> None:
    """Whether a request is rather simple or rather hard must not depend on the scale."""
    assert [score_of(at) for at in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]
    assert KNOTS == tuple(sorted(KNOTS))
