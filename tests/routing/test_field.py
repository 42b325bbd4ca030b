"""Who is still in the running: columns that must not get out of step."""

from __future__ import annotations

from app.core.errors import Unavailable
from app.core.plan import Candidate, Estimate
from app.routing.field import Field, Why
from app.routing.profiles import profiles
from tests.core.nouns import card

CARDS = [card("gpu/a"), card("gpu/b"), card("gpu/c")]
NO = Why("no", lambda: Unavailable("No."))


def field(successes: list[float] | None) -> Field:
    return Field(profiles(CARDS), [1, None, 3], [0.1, 0.2, None], successes)


def test_who_is_left_out_takes_all_its_numbers_along() -> None:
    """A price beside the wrong model would be charged to nobody and shown to everybody."""
    left = field([0.7, 0.8, 0.9])
    left.leave_out(lambda each, cost: NO if cost is None else None)
    assert left.candidates([1, 0], ["x", "y"]) == [
        Candidate(CARDS[2], "y", None, Estimate(3, None, 0.9)),
        Candidate(CARDS[0], "x", None, Estimate(1, 0.1, 0.7)),
    ]
    assert left.left == [(CARDS[1], NO)]
    assert (left.index("gpu/c"), left.index("gpu/b"), left.index(None)) == (1, None, None)


def test_without_a_verdict_there_is_no_success_to_take_along() -> None:
    left = field(None)
    left.leave_out(lambda each, cost: NO if each.place == 0 else None)
    assert [each.estimate for each in left.candidates([0, 1], ["x", "y"])] == [Estimate(None, 0.2), Estimate(3)]


def test_a_rule_that_may_leave_out_all_does_and_one_that_must_not_leaves_all() -> None:
    kept, gone = field(None), field(None)
    kept.leave_out(lambda each, cost: NO, but_never_all=True)
    gone.leave_out(lambda each, cost: NO)
    assert (len(kept.profiles), len(gone.profiles), len(gone.left)) == (3, 0, 3)


def test_candidates_are_real_candidates() -> None:
    """They are made without their constructors, for speed."""
    (made,) = field(None).candidates([0], ["x"])
    assert type(made) is Candidate and type(made.estimate) is Estimate
    assert (made.stands_in_for, made.estimate.success) == (None, None)
