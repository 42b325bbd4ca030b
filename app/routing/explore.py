"""A little chance for `adaptive`: what is never tried is never learnt about. Pure; the draw is handed in.

The probability with which the choice was made goes with it, so that a learner can undo what chance preferred.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from app.core.plan import Candidate
from app.routing.rules import Rules
from app.routing.signals import Signals

PROMISING: Final = 0.5
"""The least success expected of what is tried by chance: a person waits for the answer."""


class Chance(NamedTuple):
    """Candidates in order, and how likely this choice of the first was."""

    candidates: list[Candidate]
    probability: float


def explored(candidates: list[Candidate], signals: Signals, rules: Rules) -> Chance:
    """Now and then another candidate goes first: each side has its own share of requests, split evenly among those of
    it that are well and promising. Paid ones never get more than theirs."""
    others = [
        each
        for each in candidates[1:]
        if (each.estimate.success or 0.0) >= PROMISING and signals.demoted(each.card) is None
    ]
    local = [each for each in others if each.card.local]
    paid = [each for each in others if not each.card.local]
    start = 0.0
    for group, share in ((local, rules.explore), (paid, rules.explore_paid)):
        if not group or share <= 0:
            continue
        if signals.draw < start + share:
            chosen = group[min(int((signals.draw - start) / share * len(group)), len(group) - 1)]
            rest = [each for each in candidates if each is not chosen]
            return Chance([chosen._replace(reason="explored"), *rest], share / len(group))
        start += share
    return Chance(candidates, 1.0 - start)
