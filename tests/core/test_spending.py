"""The nouns of admission are plain values: what is handed from those who know limits to the store must not change."""

from __future__ import annotations

import pytest

from app.core.spending import Counter, Lease


def test_a_limit_cannot_be_changed_on_its_way() -> None:
    counter = Counter("global:*:day", "global", "day", "k", 5, 0, 0)
    with pytest.raises(AttributeError):
        counter.limit_nano = 10  # type: ignore[misc]  # what the test is about


def test_a_hold_grows_with_its_stream() -> None:
    lease = Lease("l1", "r1", "m", 5, (), "e")
    lease.held_nano += 3
    assert lease.held_nano == 8
