"""Ridge regression on bags of terms with numpy alone: normal equations solved by conjugate gradients.

A row is the terms it holds, each with the same weight so that the row has length 1, beside a few dense columns and a
constant. Sums run in a fixed order, so the same data give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

ROUNDS: Final = 80
TOLERANCE: Final = 1e-4
_FREE: Final = 1e-6  # the penalty of the constant


@dataclass(frozen=True, slots=True)
class Bags:
    """Rows of terms: entry i says that row `rows[i]` holds term `terms[i]`."""

    rows: Indices
    terms: Indices
    weights: Floats  # per row
    width: int

    @classmethod
    def of(cls, bags: Sequence[Sequence[int]], width: int) -> Bags:
        sizes = np.array([len(bag) for bag in bags], dtype=np.intp)
        terms = np.array([term for bag in bags for term in bag], dtype=np.intp)
        return cls(np.repeat(np.arange(len(bags)), sizes), terms, 1 / np.sqrt(np.maximum(sizes, 1)), width)

    def __len__(self) -> int:
        return len(self.weights)

    def times(self, values: Floats) -> Floats:
        """One number per row: the sum of the values of its terms."""
        return self.weights * np.bincount(self.rows, values[self.terms], len(self)).astype(np.float64)

    def back(self, values: Floats) -> Floats:
        """One number per term: the sum over the rows that hold it."""
        return np.bincount(self.terms, (self.weights * values)[self.rows], self.width).astype(np.float64)

    def only(self, chosen: Indices) -> Bags:
        """The chosen rows, in that order; each at most once."""
        place = np.full(len(self), -1, dtype=np.intp)
        place[chosen] = np.arange(len(chosen))
        kept = place[self.rows] >= 0
        return Bags(place[self.rows][kept], self.terms[kept], self.weights[chosen], self.width)


@dataclass(frozen=True, slots=True)
class Line:
    """A fitted head."""

    terms: Floats
    dense: Floats
    bias: float

    def values(self, bags: Bags, dense: Floats) -> Floats:
        return bags.times(self.terms) + dense @ self.dense + self.bias


def ridge(bags: Bags, dense: Floats, targets: Floats, weights: Floats, penalty: float) -> Line:
    """The head that fits the targets best, with its squared size held down by the penalty."""
    width = bags.width
    penalties = np.full(width + dense.shape[1] + 1, penalty)
    penalties[-1] = _FREE

    def apply(values: Floats) -> Floats:
        fitted = bags.times(values[:width]) + dense @ values[width:-1] + values[-1]
        return _back(bags, dense, weights * fitted) + penalties * values

    solved = _solve(apply, _back(bags, dense, weights * targets))
    return Line(solved[:width], solved[width:-1], float(solved[-1]))


def _back(bags: Bags, dense: Floats, values: Floats) -> Floats:
    return np.concatenate((bags.back(values), dense.T @ values, [values.sum()]))


def _solve(apply: Callable[[Floats], Floats], goal: Floats) -> Floats:
    """Conjugate gradients from zero."""
    found = np.zeros_like(goal)
    rest = goal.copy()
    step = rest.copy()
    size = float(rest @ rest)
    enough = TOLERANCE**2 * size
    for _ in range(ROUNDS):
        if size <= enough:
            break
        moved = apply(step)
        along = size / float(step @ moved)
        found += along * step
        rest -= along * moved
        before, size = size, float(rest @ rest)
        step = rest + size / before * step
    return found
