"""Growing boosted oblivious trees with numpy alone, for squared error. `routing.forest` is what comes out.

Every level of a tree is the one question that helps most over all its nodes, found in histograms of the residuals. Few
rows and columns per tree and a heavy penalty on small leaves keep it from learning noise, of which outcomes are full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.routing.forest import Forest

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

BINS: Final = 32


@dataclass(frozen=True, slots=True)
class Growth:
    """`penalty` is how many rows' worth of doubt is put on every leaf."""

    trees: int = 400
    depth: int = 6
    rate: float = 0.04
    penalty: float = 60.0
    columns: float = 0.3
    rows: float = 0.7


def grow(numbers: NDArray[np.float32], targets: Floats, weights: Floats, seed: int, growth: Growth) -> Forest:
    """The forest that predicts the targets."""
    random = np.random.default_rng(seed)
    edges = [_edges(column) for column in numbers.T]
    bins = np.stack([np.searchsorted(edge, column) for edge, column in zip(edges, numbers.T, strict=True)], axis=1)
    base = float((targets * weights).sum() / weights.sum())
    left = targets - base
    questions = np.zeros((growth.trees, growth.depth), dtype=np.intp)
    thresholds = np.zeros((growth.trees, growth.depth), dtype=np.float32)
    leaves = np.zeros((growth.trees, 2**growth.depth), dtype=np.float32)
    usable = np.array([column for column, edge in enumerate(edges) if len(edge)], dtype=np.intp)
    for tree in range(growth.trees):
        rows = np.sort(random.choice(len(bins), max(1, int(len(bins) * growth.rows)), replace=False))
        columns = np.sort(random.choice(usable, max(1, int(len(usable) * growth.columns)), replace=False))
        sample = _Sample(bins[np.ix_(rows, columns)], (left * weights)[rows], weights[rows], growth.penalty)
        node = np.zeros(len(bins), dtype=np.intp)
        for level in range(growth.depth):
            column, cut = sample.best([len(edges[column]) for column in columns])
            questions[tree, level] = columns[column]
            thresholds[tree, level] = edges[columns[column]][cut]
            sample.split(column, cut)
            node += (bins[:, columns[column]] > cut).astype(np.intp) << level
        leaves[tree] = growth.rate * sample.means(2**growth.depth)
        left -= leaves[tree][node]
    return Forest(np.array([base]), questions, thresholds, leaves)


def _edges(column: NDArray[np.float32]) -> NDArray[np.float32]:
    """The thresholds worth asking about: quantiles, without those that would send every row one way."""
    edges = np.unique(np.quantile(column, np.linspace(0, 1, BINS + 1)[1:-1]).astype(np.float32))
    kept: NDArray[np.float32] = edges[edges < column.max()]
    return kept


class _Sample:
    """The rows and columns of one tree while it grows."""

    def __init__(self, bins: Indices, residuals: Floats, weights: Floats, penalty: float) -> None:
        self._bins, self._residuals, self._weights, self._penalty = bins, residuals, weights, penalty
        self._places = bins + np.arange(bins.shape[1]) * BINS
        self._wide = [np.repeat(values, bins.shape[1]) for values in (residuals, weights)]
        self._node = np.zeros(len(bins), dtype=np.intp)
        self._level = 0

    def best(self, cuts: list[int]) -> tuple[int, int]:
        """The column and the cut that explain most over all nodes together."""
        nodes, width = 1 << self._level, self._bins.shape[1] * BINS
        places = (self._places + (self._node * width)[:, None]).ravel()
        shape = (nodes, self._bins.shape[1], BINS)
        sums, sizes = (
            np.bincount(places, values, nodes * width).reshape(shape).cumsum(axis=2) for values in self._wide
        )
        above, above_sizes = sums[:, :, -1:] - sums, sizes[:, :, -1:] - sizes
        gain = (sums**2 / (sizes + self._penalty) + above**2 / (above_sizes + self._penalty)).sum(axis=0)
        gain[np.arange(BINS) >= np.array(cuts)[:, None]] = -1.0
        column, cut = np.unravel_index(int(gain.argmax()), gain.shape)
        return int(column), int(cut)

    def split(self, column: int, cut: int) -> None:
        self._node += (self._bins[:, column] > cut).astype(np.intp) << self._level
        self._level += 1

    def means(self, leaves: int) -> Floats:
        sums = np.bincount(self._node, self._residuals, leaves)
        means: Floats = sums / (np.bincount(self._node, self._weights, leaves) + self._penalty)
        return means
