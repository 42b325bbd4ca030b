"""A plan is a value: equal decisions compare equal, and nobody downstream can change one."""

from __future__ import annotations

import pytest

from app.core.plan import Candidate, Excluded, Plan
from tests.core.nouns import card


def test_equal_decisions_are_equal_plans() -> None:
    """Explaining a decision again must give the same decision."""

    def made() -> Plan:
        return Plan((Candidate(card("gpu/qwen"), "local"),), "cost", (Excluded("claude/opus", "it is not local"),))

    assert made() == made()


def test_a_candidate_cannot_be_changed() -> None:
    """The plan of a record must be the plan that was walked."""
    plan = Plan((Candidate(card("gpu/qwen"), "local"),), "cost")
    with pytest.raises(AttributeError):
        plan.candidates[0].reason = "another"  # type: ignore[misc]
    assert (plan.tier, plan.score, plan.excluded) == (None, None, ())


def test_the_reserve_follows_in_an_emergency_with_its_trigger() -> None:
    """And is no longer said to be left out."""
    first, last = Candidate(card("gpu/qwen"), "local"), Candidate(card("claude/opus"), "waits")
    out = Excluded("claude/opus", "waits"), Excluded("gpu/small", "too small")
    made = Plan((first,), "cost", out, reserve=(last,)).called_up("gone")
    assert made == Plan((first, last._replace(reason="emergency; gone")), "cost", out[1:], trigger="gone")
