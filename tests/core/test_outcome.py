from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.outcome import Outcome, quality

SHARE = st.floats(0, 1)


def test_when_nothing_spoke_quality_is_unknown() -> None:
    """Unknown is not zero: a model nobody judged is not a bad one."""
    assert quality(()) is None
    assert quality([Outcome("finish", 0.8, 0.0, 0.0)]) is None


@given(st.lists(st.tuples(SHARE, st.floats(0.01, 10)), min_size=1))
def test_quality_lies_between_what_was_said(said: list[tuple[float, float]]) -> None:
    found = quality(Outcome("s", value, weight, 0.0) for value, weight in said)
    assert found is not None
    assert min(value for value, _ in said) - 1e-9 <= found <= max(value for value, _ in said) + 1e-9


def test_who_knows_more_counts_more() -> None:
    assert quality([Outcome("finish", 1.0, 1.0, 0.0), Outcome("feedback", 0.0, 3.0, 0.0)]) == 0.25
