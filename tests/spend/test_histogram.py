"""Without this the percentiles of a report are those of other requests."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.spend.histogram import LAST, bucket, percentile

SECONDS = st.floats(0.006, 2_000)


@given(st.lists(SECONDS, min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_within_a_bucket_of_the_exact_one(values: list[float], share: float) -> None:
    found = percentile(Counter(map(bucket, values)), share)
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    assert found is not None
    assert exact / 1.21 <= found <= exact * 1.21


@given(SECONDS, SECONDS)
def test_what_takes_longer_is_never_in_a_lower_bucket(one: float, other: float) -> None:
    assert (bucket(one) <= bucket(other)) or one > other


@pytest.mark.parametrize(("seconds", "number"), [(-1.0, 0), (0.0, 0), (0.005, 0), (0.0051, 1), (1e9, LAST)])
def test_the_ends_take_what_is_beyond_them(seconds: float, number: int) -> None:
    assert bucket(seconds) == number


def test_nothing_has_no_percentile() -> None:
    assert percentile({}, 0.5) is None
    assert percentile({3: 0}, 0.5) is None


def test_all_of_them_is_the_end_of_the_last_bucket() -> None:
    assert percentile({1: 1}, 1.0) == pytest.approx(0.006)
    assert percentile({1: 1}, 1.01) == pytest.approx(0.006)
