"""Boosted oblivious trees at work: every tree asks the same question of all nodes of a level, so that a tree is a few
comparisons and one look into a table, and eight hundred of them a handful of array operations. Pure.

Growing them is for `lab`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

DEEPEST: Final = 8
"""So that the answers of a tree fit in a byte."""
_BATCH: Final = 1_024


@dataclass(frozen=True, slots=True)
class Forest:
    """Several forests of equal size as one. `questions[t, d]` is the number that tree t looks at on level d,
    `thresholds[t, d]` what it must exceed; `leaves[t]` has an entry for every pattern of answers, the first level the
    lowest bit. The trees of the first forest come first; `bases` has one start value per forest."""

    bases: NDArray[np.float64]
    questions: NDArray[np.intp]
    thresholds: NDArray[np.float32]
    leaves: NDArray[np.float32]
    _questions: NDArray[np.intp] = field(init=False, repr=False)  # of all trees in a row, each filled up to a byte
    _thresholds: NDArray[np.float32] = field(init=False, repr=False)
    _first: NDArray[np.intp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        trees, depth = self.questions.shape
        fits = self.thresholds.shape == (trees, depth) and self.leaves.shape == (trees, 2**depth)
        if not fits or trees % len(self.bases) or depth > DEEPEST:
            raise ValueError("the parts of the forest do not fit together")
        filled = ((0, 0), (0, DEEPEST - depth))
        object.__setattr__(self, "_questions", np.pad(self.questions, filled).ravel())
        object.__setattr__(self, "_thresholds", np.pad(self.thresholds, filled, constant_values=np.inf).ravel())
        object.__setattr__(self, "_first", np.arange(trees) * 2**depth)

    @classmethod
    def joined(cls, forests: Sequence[Forest]) -> Forest:
        return cls(
            np.concatenate([forest.bases for forest in forests]),
            np.concatenate([forest.questions for forest in forests]),
            np.concatenate([forest.thresholds for forest in forests]),
            np.concatenate([forest.leaves for forest in forests]),
        )

    def values(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """One row of values per row of numbers, a value for each forest."""
        values = np.empty((len(rows), len(self.bases)))
        for start in range(0, len(rows), _BATCH):
            above = rows[start : start + _BATCH].take(self._questions, axis=1) > self._thresholds
            found = self.leaves.take(self._first + np.packbits(above, axis=1, bitorder="little"))
            values[start : start + _BATCH] = np.add.reduce(found.reshape(len(found), len(self.bases), -1), axis=2)
        return self.bases + values
