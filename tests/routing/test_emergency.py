"""What allows the cloud under `cloud: emergency`: a trigger too many costs money, one too few costs answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import AccountFault, GatewayError, Refused, ServerFault, UnsupportedParameter
from app.core.plan import Candidate
from app.routing.emergency import FAILURES, GONE, QUALITY, SLOW, UNABLE, Facts, found_out, trigger
from tests.core.nouns import card


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts(), None),
        (Facts(failures_in_a_row=2), None),
        (Facts(failures_in_a_row=3), FAILURES),
        (Facts(first_token=10.0), None),
        (Facts(first_token=10.1), SLOW),
        (Facts(quality=0.9, baseline=1.0), None),
        (Facts(quality=0.89, baseline=1.0), QUALITY),
        (Facts(quality=0.1), None),
        (Facts(baseline=0.9), None),
        (Facts(reachable=False), GONE),
        (Facts(loadable=False), UNABLE),
        (Facts(reachable=False, loadable=False, failures_in_a_row=9, first_token=99.0), GONE),
    ],
)
def test_each_trigger_has_its_measure(facts: Facts, expected: str | None) -> None:
    """The five, at their limits; what is unknown is never an emergency."""
    assert trigger(facts) == expected


@given(
    st.builds(
        Facts,
        st.integers(0, 5),
        st.none() | st.floats(0, 1),
        st.none() | st.floats(0, 1),
        st.none() | st.floats(0, 60),
        st.booleans(),
        st.booleans(),
    )
)
def test_a_trigger_is_one_of_five(facts: Facts) -> None:
    """It becomes the label of a metric."""
    assert trigger(facts) in (None, FAILURES, QUALITY, SLOW, GONE, UNABLE)


NO, MISSING, CANNOT, SICK = Refused("no"), AccountFault("404"), UnsupportedParameter("no tools"), ServerFault("500")


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([], None),
        ([("gpu/a", NO)], None),
        ([("gpu/a", NO), ("mac/c", NO)], GONE),
        ([("gpu/a", NO), ("mac/c", MISSING)], UNABLE),
        ([("gpu/a", CANNOT), ("gpu/b", MISSING), ("mac/c", CANNOT)], UNABLE),
        ([("gpu/a", CANNOT), ("mac/c", CANNOT)], None),
        ([("gpu/a", SICK), ("gpu/b", SICK), ("mac/c", SICK)], None),
    ],
)
def test_a_request_finds_out_that_nobody_is_there_or_able(
    failures: list[tuple[str, GatewayError]], expected: str | None
) -> None:
    """It must not fail for being the first to know; and a server that merely stumbles is no emergency yet."""
    met = [(Candidate(card(model), ""), error) for model, error in failures]
    assert found_out([card("gpu/a"), card("gpu/b"), card("mac/c")], met) == expected
