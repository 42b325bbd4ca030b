"""What this installation observes corrects the classifier, which was trained elsewhere: counts with a prior. Pure.

For every task type and tier there are counts of answers that went well and of those that did not (a failure, a retry,
an escalation). Where local answers fail more often than expected the score rises, where they do better it falls. The
counts are handed in; who keeps them is not said here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from app.core.value import value
from app.core.verdict import TIERS, Verdict

PRIOR_WEIGHT: Final = 20.0
"""So many observed answers count as much as what was expected before any was seen."""
EXPECTED: Final[Mapping[str, float]] = dict(zip((name for name, _ in TIERS), (0.95, 0.85, 0.65, 0.4), strict=True))
"""The share of answers by the model a tier is meant for that go well, before any was seen."""
MOST: Final = 1.5
"""The largest correction, in log-odds: observation moves a score by a tier or so, and never turns it upside down."""


@value(frozen=True, slots=True)
class Counts:
    """Answers observed for one task type and tier. May be weighted or fading, hence no integers."""

    good: float = 0.0
    bad: float = 0.0


Observed = Mapping[tuple[str, str], Counts]


def success(counts: Counts, tier: str) -> float:
    """The share that goes well, as far as the prior and the counts tell."""
    good, bad = max(0.0, counts.good), max(0.0, counts.bad)
    return (good + PRIOR_WEIGHT * EXPECTED[tier]) / (good + bad + PRIOR_WEIGHT)


def shift(counts: Counts, tier: str) -> float:
    """What to add to the log-odds of the score; 0 without observations."""
    return max(-MOST, min(MOST, _log_odds(EXPECTED[tier]) - _log_odds(success(counts, tier))))


def corrected(verdict: Verdict, observed: Observed) -> Verdict:
    """The verdict with its score corrected by what was seen of its task type and tier."""
    counts = observed.get((verdict.task_type, verdict.tier))
    if counts is None:
        return verdict
    odds = _log_odds(min(max(verdict.score, 1e-6), 1 - 1e-6)) + shift(counts, verdict.tier)
    score = 1.0 / (1.0 + math.exp(-odds))
    return replace(verdict, score=score, uncorrected=verdict.score)


def _log_odds(share: float) -> float:
    share = min(max(share, 1e-6), 1 - 1e-6)
    return math.log(share / (1 - share))
