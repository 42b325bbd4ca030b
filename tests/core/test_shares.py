"""A share must mean the same units to every replica, or a session changes sides with every request."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.shares import is_in_share


@settings(deadline=None)
@given(st.text(max_size=20), st.floats(0, 1))
def test_a_unit_gets_the_same_answer_every_time(unit: str, share: float) -> None:
    assert is_in_share("X", unit, share) is is_in_share("X", unit, share)


@settings(deadline=None)
@given(st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_growing_share_only_adds_units(unit: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert is_in_share("X", unit, large) or not is_in_share("X", unit, small)


def test_a_share_is_about_that_share_of_units() -> None:
    on = sum(is_in_share("SHADOW", f"session-{number}", 0.1) for number in range(10_000))
    assert 850 < on < 1_150


def test_two_names_do_not_pick_the_same_units() -> None:
    """Else whoever is in one trial would be in all of them."""
    units = [f"session-{number}" for number in range(2_000)]
    both = sum(is_in_share("A", unit, 0.5) and is_in_share("B", unit, 0.5) for unit in units)
    assert 400 < both < 600


def test_answers_are_the_same_in_every_process_and_release() -> None:
    assert "".join("01"[is_in_share("SHADOW", unit, 0.5)] for unit in "abcdefgh") == "11011010"


def test_the_ends() -> None:
    assert not is_in_share("X", "", 0.0) and is_in_share("X", "\ud800", 1.0)
    assert is_in_share("X", "\ud800", 0.5) in (True, False)
