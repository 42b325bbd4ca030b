"""The numbers a Card comes down to: what nobody has watched yet is judged by them alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.card import Card
from app.core.money import FREE
from app.routing.profiles import FLOOR, Profile, prior_success, profiles
from tests.core.nouns import card, paid
from tests.routing.cases import DEAR

UNIT = st.floats(0, 1)


def one(card: Card) -> Profile:
    return profiles([card])[0]


@given(st.tuples(UNIT, UNIT).map(sorted), UNIT, UNIT)
def test_harder_is_never_easier(span: list[float], first: float, second: float) -> None:
    """Within its range a model does well; beyond it ever worse, but never without hope."""
    each = one(card("gpu/a", complexity=(span[0], span[1])))
    easier, harder = sorted((first, second))
    assert 1 > prior_success(each, easier) >= prior_success(each, harder) >= FLOOR
    assert prior_success(each, span[1]) == each.prior > 0.8


def test_the_stronger_is_expected_to_do_better() -> None:
    """Its stated quality counts before the range that was guessed from its size."""
    large, small = one(card("gpu/l", complexity=(0.6, 1.0))), one(card("gpu/s", complexity=(0.0, 0.4)))
    assert large.prior > small.prior
    assert one(card("gpu/s", complexity=(0.0, 0.4), quality=0.99)).prior > large.prior


def test_sizes_are_those_of_the_tiers() -> None:
    spans = {(0.0, 0.4): "simple", (0.2, 0.7): "moderate", (0.3, 0.8): "complex", (0.6, 1.0): "very_complex"}
    assert {span: one(card("gpu/a", complexity=span)).tier for span in spans} == spans


def test_a_local_model_without_a_price_is_free_and_a_paid_one_is_not() -> None:
    """Unknown is not zero, except where nobody sends a bill."""
    assert one(card("gpu/a")).price == FREE
    assert one(card("gpu/a", price=DEAR)).price == DEAR
    unknown = one(paid("vendor/a"))
    assert (unknown.price, unknown.flat) == (None, False)


def test_among_equals_local_comes_first_and_then_the_smaller() -> None:
    cards = [
        paid("vendor/s", complexity=(0.0, 0.4)),
        card("gpu/l", complexity=(0.4, 0.9)),
        card("gpu/s", complexity=(0.0, 0.4)),
        card("ollama/s", complexity=(0.0, 0.4)),
    ]
    assert [each.thrift for each in profiles(cards)] == [3, 2, 0, 1]
