"""Busy upstreams: who steps aside for whom, and who must not."""

from __future__ import annotations

from app.routing.load import relieved, smaller
from app.routing.profiles import profiles
from tests.core.nouns import card, paid

MIDDLE, HIGH, LOW = (0.2, 0.7), (0.6, 1.0), (0.0, 0.4)
CARDS = [
    card("gpu/a", complexity=MIDDLE),
    paid("vendor/b", complexity=MIDDLE),
    card("gpu/c", complexity=MIDDLE),
    card("gpu/small", complexity=LOW),
    card("gpu/high", complexity=HIGH),
]
PROFILES, ABLE = profiles(CARDS), [True] * len(CARDS)


def test_the_free_take_the_places_of_the_busy_among_their_like() -> None:
    """Not those of a paid one between them, which would cost money, nor those of another size."""
    busy = [True, False, False, False, False]
    assert relieved([0, 1, 2, 3, 4], PROFILES, ABLE, busy) == [2, 1, 0, 3, 4]


def test_nobody_weaker_steps_in_unasked() -> None:
    busy, covers = [True, False, False, False, False], [True, True, False, True, True]
    assert relieved([0, 1, 2, 3, 4], PROFILES, covers, busy) == [0, 1, 2, 3, 4]


def test_where_all_are_busy_the_order_stays() -> None:
    assert relieved([2, 0, 1], PROFILES, ABLE, [True] * 5) == [2, 0, 1]


def test_the_strongest_of_the_smaller_helps_out() -> None:
    busy = [True, False, False, False, False]
    assert smaller([0, 1, 2, 3, 4], PROFILES, busy) == 3
    assert smaller([4, 0, 1, 2, 3], PROFILES, [False, False, True, False, True]) == 0


def test_nobody_helps_out_who_is_busy_larger_or_paid() -> None:
    assert smaller([0, 1, 4, 3], PROFILES, [True, False, False, True, False]) is None
    assert smaller([3, 1, 4], PROFILES, [False] * 5) is None
