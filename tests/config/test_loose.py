"""Somebody else's file holds anything; nothing in it may bring the import down or become a wrong setting."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.loose import decimal_of, items, mapping, number, texts, whole

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.text()),
)


@given(ANYTHING)
def test_every_value_is_read_in_its_type_or_not_at_all(value: Any) -> None:
    assert dict(mapping(value)) == (value if isinstance(value, dict) else {})
    assert items(value) == (value if isinstance(value, list) else [])
    assert all(texts(value))
    for found in (number(value), whole(value), decimal_of(value)):
        assert found is None or found >= 0


@pytest.mark.parametrize(
    ("value", "found"),
    [(3, 3), (0.5, 0.5), (0, None), (-1, None), (True, None), ("3", None), (10**12, None), (1e400, None)],
)
def test_numbers_are_above_zero_and_within_reason(value: Any, found: float | None) -> None:
    assert number(value) == found


def test_zero_counts_where_it_may_be() -> None:
    assert number(0, least=0) == 0 and whole(0, least=0) == 0 and decimal_of(0) == 0


@pytest.mark.parametrize(("value", "found"), [(3, 3), (3.0, 3), (3.5, None), ("3", None), (0, None)])
def test_whole_numbers(value: Any, found: int | None) -> None:
    assert whole(value) == found


def test_a_price_is_what_was_written() -> None:
    assert decimal_of(2.5e-06) == Decimal("0.0000025")


def test_one_text_is_a_list_of_it() -> None:
    assert texts("a") == ["a"] and texts(["a", 1, "", "b"]) == ["a", "b"]
