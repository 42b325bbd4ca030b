"""Whoever wrote something wrong reads what to write, not what a library calls it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.access.keys import KeySpec
from app.config.wording import place_of, worded


@pytest.mark.parametrize(
    ("body", "place", "said"),
    [
        ({}, ("name",), "is required"),
        ({"name": ""}, ("name",), "must not be empty"),
        ({"name": 3}, ("name",), "must be text; put quotes around it"),
        ({"name": "x" * 101}, ("name",), "must be at most 100 characters"),
        ({"name": "a\n"}, ("name",), "has characters that may not be in it"),
        ({"budgets": {"week": 5}}, ("budgets", "week"), "must be one of 'day', 'month' or 'total'"),
        ({"budgets": "week=5"}, ("budgets",), "must be a mapping of keys to values"),
        ({"budgets": {"day": "x"}}, ("budgets", "day"), "must be a number"),
        ({"budgets": {"day": "5 USD"}}, ("budgets", "day"), "must be a number, without quotes or a unit"),
        ({"budgets": {"day": 1e9}}, ("budgets", "day"), "must be at most 1000000"),
        ({"budgets": {"day": -1}}, ("budgets", "day"), "must be at least 0"),
        ({"models": "m"}, ("models",), "must be a list"),
        ({"models": [""]}, ("models", 0), "must not be empty"),
        ({"expires_at": "2027"}, ("expires_at",), "must be a whole number, without quotes or a unit"),
        ({"expires_at": 0}, ("expires_at",), "must be more than 0"),
        ({"expires_at": 1 << 40}, ("expires_at",), "must be less than 1099511627776"),
        ({"priority": "x"}, ("priority",), "must be one of 'interactive' or 'batch'"),
        ([], (), "must be a mapping of keys to values"),
    ],
)
def test_what_is_wrong_with_a_key(body: Any, place: tuple[str | int, ...], said: str) -> None:
    if isinstance(body, dict) and body and "name" not in body:
        body = {"name": "ci", **body}
    with pytest.raises(ValidationError) as caught:
        KeySpec.model_validate(body)
    (first, *_) = caught.value.errors()
    assert (place_of(first), worded(first)) == (place, said)
