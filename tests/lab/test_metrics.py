"""The figures are those of the papers they are compared with."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lab.metrics import Curve, Figure, auc, figure, share

ONE = np.array([1.0, 0.0, 0.0, 1.0])


def slow_area(scores: list[float], gains: list[float]) -> float:
    """APGR as its definition says it: vertices of a piecewise linear curve, equal scores along a straight line."""
    points = [(0.0, 0.0)]
    for level in sorted(set(scores), reverse=True):
        group = [gain for score, gain in zip(scores, gains, strict=True) if score == level]
        points.append((points[-1][0] + len(group) / len(scores), points[-1][1] + sum(group) / len(scores)))
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
    return area / points[-1][1]


rows = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([-1.0, 0.0, 0.5, 1.0])), min_size=2, max_size=20)


@given(rows.filter(lambda found: abs(sum(gain for _, gain in found)) > 0.1))
def test_apgr_is_its_definition(found: list[tuple[int, float]]) -> None:
    scores, gains = [float(score) for score, _ in found], [gain for _, gain in found]
    assert Curve(np.array(scores), np.array(gains)).area() == pytest.approx(slow_area(scores, gains))


def test_a_constant_score_is_chance() -> None:
    """A router that knows nothing must not look like one that does."""
    curve = Curve(np.zeros(4), ONE)
    assert (curve.area(), curve.share_for(0.5), curve.share_for(0.8)) == pytest.approx((0.5, 0.5, 0.8))


def test_a_perfect_score_needs_few_strong_calls() -> None:
    curve = Curve(ONE, ONE)
    assert curve.area() == pytest.approx(0.75)
    assert curve.share_for(0.5) == pytest.approx(0.25)
    assert curve.share_for(0.0) == 0.0


def test_costs_stretch_the_axis() -> None:
    """A router that sends the dearest prompts to the strong model must pay for it."""
    dear = Curve(ONE, ONE, costs=np.array([9.0, 1.0, 1.0, 9.0]))
    assert dear.area() < Curve(ONE, ONE).area()


def test_no_gap_is_no_figure() -> None:
    """Two equal models leave nothing to win, which is not the same as 0."""
    assert np.isnan(Curve(ONE, np.zeros(4)).area())
    assert np.isnan(Curve(ONE, -ONE).share_for(0.5))


def test_auc_counts_pairs() -> None:
    assert auc(np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1])) == 1.0
    assert auc(np.array([1.0, 1.0]), np.array([0, 1])) == 0.5
    assert auc(np.array([3.0, 2.0, 1.0]), np.array([0, 1, 1])) == 0.0
    assert np.isnan(auc(np.array([1.0]), np.array([1])))


def test_intervals_hold_the_value_and_shrink() -> None:
    """A figure without its uncertainty invites to believe noise."""
    random = np.random.default_rng(1)
    right = random.random(5_000) < 0.7
    few = figure(lambda counts: share(right[:50], counts), 50, 1, draws=200)
    many = figure(lambda counts: share(right, counts), 5_000, 1, draws=200)
    assert few.low < few.value < few.high
    assert many.high - many.low < few.high - few.low
    assert str(Figure(0.5, 0.25, 0.75, 9)) == "0.500 [0.250, 0.750]"


def test_nothing_to_draw_is_no_figure() -> None:
    assert np.isnan(share(np.array([]), np.array([])))
    assert np.isnan(figure(lambda _: float("nan"), 3, 0, draws=3).low)
