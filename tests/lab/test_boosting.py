"""Grown trees predict what they were shown, and are the same every time."""

from __future__ import annotations

import numpy as np

from app.lab.boosting import Growth, grow

GROWTH = Growth(trees=60, depth=3, rate=0.2, penalty=2.0, columns=0.7)
RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.normal(size=(600, 6)).astype(np.float32)
NUMBERS[:, 5] = 1.0
TARGETS = np.where((NUMBERS[:, 0] > 0) == (NUMBERS[:, 1] > 0), 1.0, 0.0)
ONES = np.ones(600)


def test_it_learns_what_no_line_can() -> None:
    """Whether two numbers agree in sign is no sum of either; that is what trees are for."""
    values = grow(NUMBERS, TARGETS, ONES, 1, GROWTH).values(NUMBERS).ravel()
    assert ((values > 0.5) == (TARGETS > 0.5)).mean() > 0.93


def test_the_same_seed_grows_the_same_forest() -> None:
    """Reproducible byte for byte, or nobody can check what ships."""
    one, two, other = (grow(NUMBERS, TARGETS, ONES, seed, GROWTH) for seed in (1, 1, 2))
    assert one.leaves.tobytes() == two.leaves.tobytes()
    assert one.thresholds.tobytes() == two.thresholds.tobytes()
    assert one.leaves.tobytes() != other.leaves.tobytes()


def test_rows_without_weight_teach_nothing() -> None:
    """Half of the table knows nothing of the gain, and must not pull it to zero."""
    weights = np.where(np.arange(600) < 300, 1.0, 1e-9)
    lies = np.where(np.arange(600) < 300, TARGETS, 5.0)
    values = grow(NUMBERS, lies, weights, 1, GROWTH).values(NUMBERS).ravel()
    assert values.max() < 1.5


def test_a_constant_number_is_never_asked_about() -> None:
    """A question every text answers alike wastes a level of the tree."""
    assert 5 not in grow(NUMBERS, TARGETS, ONES, 1, GROWTH).questions
