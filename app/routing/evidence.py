"""How much speaks for one arm of a rollout being worse than the other, as a number that may be looked at all the time.

If the arms are alike, each bad event falls on the treatment with the probability of its share of the requests, however
good or bad the hour is for both. Evidence is the likelihood ratio of "the treatment has them `RATES` times as often"
against that, averaged over those rates and over when it may have begun, batch by batch. While the arms are alike this
is a martingale (at most one, in expectation), so by Ville's inequality it ever reaches 1/a with a probability of at
most a, however long one watches and however often one looks: at `ENOUGH`, in one of a thousand rollouts per measure.

Badness may be a fraction (an answer of quality 0.7 is bad by 0.3): by Jensen's inequality that only lowers evidence.
The share is that of each batch's own requests, so callers who ask for more than others do no harm.

What it takes where control has no failures: five of a canary with a share of 10 %, thirteen at 50 %, 38 at 80 %. If it
fails 10 % of its answers, at 20 requests/s, these come in 25, 13 and 24 seconds on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

RATES: Final = (1.25, 2.0, 5.0, 20.0, 100.0)
ENOUGH: Final = 1_000.0
_LOG_MOST: Final = 400.0
_MOST: Final = math.exp(_LOG_MOST)  # no more is needed, and infinity cannot be written as JSON


@dataclass(frozen=True, slots=True)
class Evidence:
    """`sums` holds, per rate, the likelihood ratios of all beginnings so far; `batches` counts those with bad events.
    The beginning at batch j has the weight 1/(j(j+1)); those still to come have 1/(batches+1) together."""

    sums: tuple[float, ...] = (0.0,) * len(RATES)
    batches: int = 0

    @property
    def value(self) -> float:
        return sum(self.sums) / len(RATES) + 1 / (self.batches + 1)

    def after(self, bad: tuple[float, float], of: tuple[int, int]) -> Evidence:
        """With one more batch: how much was bad, of how many, each for control and treatment."""
        control, treatment = bad
        if control + treatment <= 0 or not all(of):
            return self
        share, batches = of[1] / sum(of), self.batches + 1
        begun = 1 / (batches * (batches + 1))
        ratios = (_ratio(rate, share, treatment, control + treatment) for rate in RATES)
        sums = (min((total + begun) * ratio, _MOST) for total, ratio in zip(self.sums, ratios, strict=True))
        return Evidence(tuple(sums), batches)


def _ratio(rate: float, share: float, treatment: float, both: float) -> float:
    return math.exp(min(treatment * math.log(rate) - both * math.log(1 - share + share * rate), _LOG_MOST))
