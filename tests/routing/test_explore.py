"""Chance in `adaptive`: how often, on whom, and that the probability told is the true one."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from app.core.plan import Candidate, Estimate
from app.routing.explore import explored
from app.routing.rules import Rules
from app.routing.signals import Signals
from tests.core.nouns import card, paid

FIRST, LOCAL, OTHER, PAID = card("gpu/a"), card("gpu/b"), card("gpu/c"), paid("claude/d")
RULES = Rules(explore=0.05, explore_paid=0.01)


def candidates(*cards: object, success: float = 0.9) -> list[Candidate]:
    return [Candidate(each, "best by experience", None, Estimate(0, None, success)) for each in cards]  # type: ignore[arg-type]


def test_each_side_gets_its_share_and_says_with_which_probability() -> None:
    """A learner divides by the probability; paid models never get more than the operator gave."""
    chance, plan = Random(7), candidates(FIRST, LOCAL, OTHER, PAID)
    chosen: Counter[str] = Counter()
    for _ in range(20_000):
        first, probability = explored(plan, Signals(draw=chance.random()), RULES)
        chosen[first[0].card.id] += 1
        assert probability == {"gpu/a": 0.94, "gpu/b": 0.025, "gpu/c": 0.025, "claude/d": 0.01}[first[0].card.id]
    assert 400 < chosen["gpu/b"] < 600
    assert 400 < chosen["gpu/c"] < 600
    assert 130 < chosen["claude/d"] < 270


def test_the_others_stand_behind_what_chance_put_first() -> None:
    made, _ = explored(candidates(FIRST, LOCAL, PAID), Signals(draw=0.0), RULES)
    assert [each.card.id for each in made] == ["gpu/b", "gpu/a", "claude/d"]
    assert made[0].reason == "explored"


@pytest.mark.parametrize("draw", [0.0, 0.02, 0.06, 0.5])
def test_nobody_waits_for_the_hopeless_or_the_sick(draw: float) -> None:
    """A person reads the answer."""
    weak = [*candidates(FIRST), *candidates(LOCAL, PAID, success=0.3)]
    assert explored(weak, Signals(draw=draw), RULES) == (weak, 1.0)
    sick = Signals(demoted=lambda each: None if each is FIRST else "failing lately", draw=draw)
    assert explored(candidates(FIRST, LOCAL, PAID), sick, RULES).probability == 1.0


def test_a_share_of_nothing_is_never_used() -> None:
    rules = Rules(explore=0.0, explore_paid=0.0)
    assert explored(candidates(FIRST, LOCAL, PAID), Signals(draw=0.0), rules).probability == 1.0


def test_the_share_of_one_side_is_not_lent_to_the_other() -> None:
    made, probability = explored(candidates(FIRST, PAID), Signals(draw=0.02), RULES)
    assert (made[0].card, probability) == (FIRST, 0.99)
