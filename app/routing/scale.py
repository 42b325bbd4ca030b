"""The scale of complexity: from the probability that a small model is not enough to a score. Pure.

People give models ranges that leave room between a small one (up to 0.4) and a large one (from 0.7 or 0.8). What is
clearly simple has a probability below a fifth, what is clearly medium one anywhere from a quarter to two thirds. The
scale draws these apart and leaves the order, and the middle, as they are.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

KNOTS: Final = ((0.0, 0.0), (0.18, 0.23), (0.24, 0.405), (0.5, 0.5), (0.69, 0.62), (0.73, 0.8), (1.0, 1.0))
"""Pairs of probability and score; straight lines lie between them."""
_BACK: Final = tuple((score, probability) for probability, score in KNOTS)


def score_of(probability: float) -> float:
    return _along(KNOTS, probability)


def probability_of(score: float) -> float:
    return _along(_BACK, score)


def _along(knots: tuple[tuple[float, float], ...], at: float) -> float:
    for (left, low), (right, high) in pairwise(knots):
        if at <= right:
            return low + (high - low) * (at - left) / (right - left)
    return 1.0
