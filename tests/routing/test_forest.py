"""Trees at work: the tables are looked into at the right places."""

from __future__ import annotations

import numpy as np
import pytest

from app.routing.forest import Forest


def one(base: float, questions: list[list[int]], thresholds: list[list[float]], leaves: list[list[float]]) -> Forest:
    return Forest(
        np.array([base]),
        np.array(questions, dtype=np.intp),
        np.array(thresholds, dtype=np.float32),
        np.array(leaves, dtype=np.float32),
    )


SMALL = one(10.0, [[0, 1], [1, 1]], [[0.5, 0.5], [2.0, 0.0]], [[1, 2, 3, 4], [100, 200, 300, 400]])


def test_each_row_finds_its_leaves() -> None:
    """Number 0 above its threshold is the lowest bit; a wrong bit order would shuffle every score."""
    rows = np.array([[0, 0], [1, 0], [0, 1], [1, 3]], dtype=np.float32)
    assert SMALL.values(rows).ravel().tolist() == [111.0, 112.0, 313.0, 414.0]


def test_a_threshold_itself_is_not_above() -> None:
    """Training cut between values; at work the same side must be taken."""
    assert SMALL.values(np.array([[0.5, 0.0]], dtype=np.float32)).item() == 111.0


def test_joined_forests_keep_their_values_apart() -> None:
    """The score and the gain come out of one pass and must not mix."""
    other = one(-1.0, [[1, 0], [0, 0]], [[0.0, 0.0], [9.0, 9.0]], [[5, 6, 7, 8], [0, 0, 0, 1]])
    rows = np.array([[1, 0], [0, 1], [1, 3]] * 700, dtype=np.float32)
    both = Forest.joined([SMALL, other]).values(rows)
    assert np.array_equal(both, np.hstack([SMALL.values(rows), other.values(rows)]))


def test_no_rows_have_no_values() -> None:
    assert SMALL.values(np.zeros((0, 2), dtype=np.float32)).shape == (0, 1)


def test_parts_that_do_not_fit_are_refused() -> None:
    """A truncated table must fail at start, not at the first request."""
    with pytest.raises(ValueError, match="fit"):
        one(0.0, [[0, 1]], [[0.5, 0.5]], [[1, 2]])
