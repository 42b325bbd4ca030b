"""What the classifier thinks of a request: how hard it is, what kind of work, and how sure that is."""

from __future__ import annotations

from bisect import bisect
from dataclasses import field
from typing import Final

from app.core.value import value

TIERS: Final = (("simple", 0.25), ("moderate", 0.5), ("complex", 0.75), ("very_complex", 1.0))
"""Names and upper bounds of the tiers; a score on a bound belongs to the tier above."""
TIER_NAMES: Final = tuple(name for name, _ in TIERS)
_BOUNDS: Final = tuple(bound for _, bound in TIERS[:-1])
TASKS: Final = (
    "code",
    "debug",
    "docs",
    "architecture",
    "test_generation",
    "coverage_analysis",
    "flaky_detection",
    "code_review",
    "general",
)


@value(frozen=True, slots=True)
class Verdict:
    """`score` is the calibrated complexity, 0 to 1: the probability that a small model is not enough, on the scale of
    the ranges that models are given (`routing/scale.py`). `gain` is the probability that a strong model does better
    than a weak one, which is less where both fail. `confidence` is the probability that the score is on the right side
    of the middle. `abstained`: it was unsure, and took the middle. `uncorrected` is the score before this installation
    corrected it; what is learnt of answers is kept under the tier of that, which a correction does not move
    (`learnt_tier`). `features` are what it looked at, for learners to come; `version` names the classifier."""

    score: float
    confidence: float
    task_type: str
    version: str
    abstained: bool = False
    features: tuple[float, ...] = ()
    gain: float = 0.0
    task_confidence: float = 1.0
    uncorrected: float | None = None
    tier: str = field(init=False, compare=False)
    learnt_tier: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Both are asked several times for every request."""
        tier = tier_of(self.score)
        object.__setattr__(self, "tier", tier)
        object.__setattr__(self, "learnt_tier", tier if self.uncorrected is None else tier_of(self.uncorrected))


def tier_of(score: float) -> str:
    return TIER_NAMES[bisect(_BOUNDS, score)]
