"""What the classifier thinks of a request: how hard it is, what kind of work, and how sure that is."""

from __future__ import annotations

from typing import Final

from app.core.value import value

TIERS: Final = (("simple", 0.25), ("moderate", 0.5), ("complex", 0.75), ("very_complex", 1.0))
"""Names and upper bounds of the tiers; a score on a bound belongs to the tier above."""
TIER_NAMES: Final = tuple(name for name, _ in TIERS)
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

    @property
    def tier(self) -> str:
        return tier_of(self.score)

    @property
    def learnt_tier(self) -> str:
        return tier_of(self.score if self.uncorrected is None else self.uncorrected)


def tier_of(score: float) -> str:
    for name, bound in TIERS:
        if score < bound:
            return name
    return TIERS[-1][0]
