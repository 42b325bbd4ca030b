"""A score of 0.7 must be right seven times in ten."""

from __future__ import annotations

import numpy as np
import pytest

from app.lab.calibrate import platt, task_scale

RANDOM = np.random.default_rng(5)


def test_slope_and_offset_are_found() -> None:
    values = RANDOM.normal(size=20_000)
    truths = RANDOM.random(20_000) < 1 / (1 + np.exp(-(3 * values - 1)))
    assert platt(values, truths) == pytest.approx((3, -1), abs=0.15)


def test_separable_rows_do_not_run_away() -> None:
    """A tiny set without a mistake must not give infinite certainty."""
    slope, offset = platt(np.array([-1.0, -0.5, 0.5, 1.0]), np.array([0, 0, 1, 1]))
    assert np.isfinite([slope, offset]).all() and slope > 0


def test_sure_heads_are_sharpened_and_unsure_ones_are_not() -> None:
    """The confidence of a task type must follow how often it is right."""
    truths = RANDOM.integers(0, 3, size=300)
    right = np.eye(3)[truths]
    noise = RANDOM.random((300, 3))
    assert task_scale(right, truths) > task_scale(noise, truths)
