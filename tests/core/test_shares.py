"""A share must mean the same units to every replica, or a session changes sides with every request."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.shares import is_in_share


@settings(deadline=None)
@given(st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_growing_share_only_adds_units(unit: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert is_in_share("X", unit, large) or not is_in_share("X", unit, small)


def test_answers_are_the_same_in_every_process_and_release() -> None:
    assert "".join("01"[is_in_share("SHADOW", unit, 0.5)] for unit in "abcdefgh") == "11011010"


def test_the_ends() -> None:
    assert not is_in_share("X", "a", 0.0) and is_in_share("X", "\ud800", 1.0)
    assert is_in_share("X", "\ud800", 0.5) in (True, False)
