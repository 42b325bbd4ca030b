"""Without this savings are held against a model that could not have answered, or against a price that nobody knows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.card import Ability, Card
from app.core.money import FREE, Price, Tokens, cost_nano
from app.spend.dearest import Dearest
from tests.core.nouns import card, paid

CHAT = frozenset({Ability.CHAT})
TOKENS = Tokens(1_000, 100)


def flat(price: int) -> Price:
    return Price(price, price, price, price, price)


def test_the_dearest_that_can_do_it_is_the_measure() -> None:
    cards = (
        card("gpu/qwen", price=FREE),
        paid("claude/small", price=flat(1_000)),
        paid("claude/large", price=flat(5_000), abilities=CHAT),
        paid("acme/unknown"),
        paid("acme/vectors", price=flat(9_000), abilities=frozenset({Ability.EMBEDDINGS})),
    )
    dearest = Dearest(lambda: cards)
    assert dearest.cost_nano(CHAT, TOKENS) == 5_500
    assert dearest.cost_nano(CHAT | {Ability.TOOLS}, TOKENS) == 1_100


def test_who_has_too_small_a_window_is_no_measure() -> None:
    cards = (paid("a/large", price=flat(5_000), context_window=1_099), paid("a/wide", price=flat(2_000)))
    dearest = Dearest(lambda: cards)
    assert dearest.cost_nano(CHAT, TOKENS) == 2_200
    assert dearest.cost_nano(CHAT, Tokens(1_000, 99)) == 5_495


def test_where_nobody_capable_has_a_price_it_is_unknown() -> None:
    """Comparing with what is free would call every cent a loss, and everything unknown free."""
    assert Dearest(lambda: (card("gpu/qwen", price=FREE), paid("a/b"))).cost_nano(CHAT, TOKENS) is None
    assert Dearest(lambda: ()).cost_nano(CHAT, TOKENS) is None


def test_models_that_come_and_go_are_noticed() -> None:
    cards: list[tuple[Card, ...]] = [(paid("a/b", price=flat(1_000)),)]
    dearest = Dearest(lambda: cards[-1])
    assert dearest.cost_nano(CHAT, TOKENS) == 1_100
    cards.append((paid("a/b", price=flat(3_000)),))
    assert dearest.cost_nano(CHAT, TOKENS) == 3_300


prices = st.builds(Price, *[st.integers(0, 3)] * 5)
tiered = st.one_of(prices, st.builds(lambda a, b: Price(1, 2, 1, 1, 1, above=((a, b),)), st.integers(0, 900), prices))
windows = st.one_of(st.none(), st.integers(500, 3_000))
tokens = st.builds(Tokens, st.integers(0, 2_000), st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))


@given(st.lists(st.tuples(tiered, windows), max_size=6), tokens)
def test_leaving_out_the_cheaper_ones_changes_nothing(offers: list[tuple[Price, int | None]], used: Tokens) -> None:
    cards = [paid(f"a/{n}", price=price, context_window=window) for n, (price, window) in enumerate(offers)]
    size = used.prompt + used.completion
    costs = [cost_nano(used, price) for price, window in offers if window is None or window >= size]
    assert Dearest(lambda: cards).cost_nano(CHAT, used) == (max(costs, default=0) or None)
