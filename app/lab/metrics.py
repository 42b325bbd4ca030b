"""How good scores are, as numbers: RouteLLM's APGR and CPT, the area under the ROC curve, and intervals by resampling.

The curve behind APGR sends the rows with the largest scores to the strong model and lets the share of strong calls run
from 0 to 1; PGR is the part of the gap between weak and strong that is won. Rows of equal score go in random order,
which is a straight line. 0.5 is what constant or random scores get.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS: Final = 1_000
_NOTHING: Final = float("nan")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float
    rows: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Curve:
    """Rows in the order in which they go to the strong model, each with what it wins and what it costs there."""

    def __init__(self, scores: Floats, gains: Floats, costs: Floats | None = None) -> None:
        costs = np.ones(len(scores)) if costs is None else costs
        order = np.argsort(-scores, kind="stable")
        _, self._group, sizes = np.unique(-scores[order], return_inverse=True, return_counts=True)
        self._order, self._sizes = order, sizes
        self._gains, self._costs = gains[order], costs[order]

    def area(self, counts: Floats | None = None) -> float:
        """APGR; `counts` says how often each row is drawn, for resampling."""
        won, total = self.won(counts)
        return won / total if total else _NOTHING

    def won(self, counts: Floats | None = None) -> tuple[float, float]:
        """The mean gain over all shares of cost, and the gain when all is spent; both summed over the rows."""
        gains, costs = self._grouped(counts)
        spent = costs.sum()
        if spent == 0:
            return 0.0, 0.0
        return float(((gains.cumsum() - gains / 2) * costs).sum() / spent), float(gains.sum())

    def share_for(self, part: float) -> float:
        """CPT: the smallest share of strong calls that wins this part of the gap."""
        gains, costs = self._grouped(None)
        total = gains.sum()
        if total <= 0:
            return _NOTHING
        won = np.concatenate(([0.0], gains.cumsum() / total))
        spent = np.concatenate(([0.0], costs.cumsum() / costs.sum()))
        reached = int(np.argmax(won >= part - 1e-12))
        rise = won[reached] - won[reached - 1]
        within = 1.0 if rise <= 0 else max(0.0, part - won[reached - 1]) / rise
        return float(spent[reached - 1] + within * (spent[reached] - spent[reached - 1])) if reached else 0.0

    def _grouped(self, counts: Floats | None) -> tuple[Floats, Floats]:
        """Gain and cost of every group of equal scores, in order."""
        times = np.ones(len(self._order)) if counts is None else counts[self._order]
        groups = len(self._sizes)
        gains = np.bincount(self._group, self._gains * times, groups)
        costs = np.bincount(self._group, self._costs * times, groups)
        return gains.astype(np.float64), costs.astype(np.float64)


def auc(scores: Floats, truths: NDArray[Any], counts: Floats | None = None) -> float:
    """The probability that a true row scores above a false one."""
    times = np.ones(len(scores)) if counts is None else counts
    _, group = np.unique(scores, return_inverse=True)
    positive = np.bincount(group, times * truths)
    negative = np.bincount(group, times * (1 - truths))
    pairs = positive.sum() * negative.sum()
    below = negative.cumsum() - negative / 2
    return float((positive * below).sum() / pairs) if pairs else _NOTHING


def share(right: NDArray[Any], counts: Floats | None = None) -> float:
    times = np.ones(len(right)) if counts is None else counts
    return float((right * times).sum() / times.sum()) if times.sum() else _NOTHING


def figure(measure: Callable[[Floats | None], float], rows: int, seed: int, draws: int = DRAWS) -> Figure:
    """The measure on all rows, and its 95 % interval by drawing rows with replacement."""
    random = np.random.default_rng(seed)
    found = [measure(random.multinomial(rows, np.full(rows, 1 / rows)).astype(np.float64)) for _ in range(draws)]
    known = [value for value in found if not np.isnan(value)]
    low, high = np.quantile(known, (0.025, 0.975)) if known else (_NOTHING, _NOTHING)
    return Figure(measure(None), float(low), float(high), rows)
