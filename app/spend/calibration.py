"""How far below their strict bound prompts really are, learned per model from what upstreams bill.

Opt-in, for who prefers smaller holds to certainty. A prompt's bound is lowered to a high quantile of what share of
their strict bounds earlier prompts of that model and size came to. Of n earlier shares and the next one each is as
likely to be the largest, so the ceil(q (n + 1))-th of them bounds the next with probability q, whatever their
distribution, as long as tomorrow's prompts resemble today's. Until there are enough the strict bound stands. How often
the promise was really broken is told, prompt by prompt.

State is bounded and one process's own: counts in classes of shares, halved from time to time, so that the old fades.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

QUANTILE: Final = 0.999
MARGIN: Final = 1.05
"""What is added to the quantile, for prompts that resemble the earlier ones a little less."""
MODELS_MAX: Final = 512
SIZES: Final = (1_024, 8_192, 65_536)
"""Bounds of the classes of prompts by size: framing weighs in short ones, and long ones are where the money is."""
CLASSES: Final = 128
CLASSES_PER_HALVING: Final = 16  # each class is 4.4 % wide
REMEMBERED: Final = 50_000
REFRESH_EVERY: Final = 32


@dataclass(slots=True)
class _Shares:
    """Counts of shares; class k holds those up to 2 ** (-k / 16)."""

    counts: list[int] = field(default_factory=lambda: [0] * CLASSES)
    total: int = 0
    until_refresh: int = 0
    most: float = 1.0

    def add(self, share: float, quantile: float) -> None:
        place = CLASSES - 1 if share <= 0 else int(-CLASSES_PER_HALVING * math.log2(share))
        self.counts[min(max(place, 0), CLASSES - 1)] += 1
        self.total += 1
        if self.total >= REMEMBERED:
            self.counts = [count // 2 for count in self.counts]
            self.total = sum(self.counts)
        self.until_refresh -= 1
        if self.until_refresh <= 0:
            self.until_refresh = REFRESH_EVERY
            self.most = min(1.0, MARGIN * self._quantile(quantile))

    def _quantile(self, quantile: float) -> float:
        above = self.total - math.ceil(quantile * (self.total + 1))  # how many may be larger
        if above < 0:
            return 1.0
        place = next(place for place, so_far in enumerate(accumulate(self.counts)) if so_far > above)
        return math.exp2(-place / CLASSES_PER_HALVING)


@dataclass(slots=True)
class _Model:
    shares: tuple[_Shares, ...] = field(default_factory=lambda: tuple(_Shares() for _ in range(len(SIZES) + 1)))

    def of_size(self, tokens: int) -> _Shares:
        return self.shares[sum(tokens >= size for size in SIZES)]


class Calibration:
    """`told` hears of every prompt whose bound was lowered, once it is billed, whether it came to more than that."""

    def __init__(self, told: Callable[[bool], None], quantile: float = QUANTILE) -> None:
        self._told = told
        self._quantile = quantile
        self._models: dict[str, _Model] = {}

    def fit(self, model: str, strict: int) -> int:
        """The tokens to reckon with for a prompt whose strict bound is `strict`."""
        known = self._models.get(model)
        return strict if known is None else min(strict, math.ceil(strict * known.of_size(strict).most))

    def learn(self, model: str, strict: int, reckoned: int, billed: int) -> None:
        """A prompt of that strict bound, reckoned with as `reckoned` tokens, was billed as `billed`."""
        known = self._models.get(model)
        if known is None:
            if len(self._models) >= MODELS_MAX:
                self._models.pop(next(iter(self._models)))
            known = self._models[model] = _Model()
        if reckoned < strict:
            self._told(billed > reckoned)
        known.of_size(strict).add(billed / max(1, strict), self._quantile)
