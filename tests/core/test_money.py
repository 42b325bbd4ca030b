"""Money: exact, in integers, and never in the user's disfavour by more than one rounding."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.money import FREE, NANO_PER_USD, Price, Tokens, cost_nano, per_million, usd

RATES = st.integers(0, 10**9)
COUNTS = st.integers(0, 10**7)
FLAT = st.builds(Price, RATES, RATES, RATES, RATES, RATES)


@st.composite
def counted(draw: st.DrawFn) -> Tokens:
    """What an honest upstream says: the parts of a prompt are no more than the prompt."""
    read, write, fresh = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    return Tokens(
        prompt=fresh + read + write,
        completion=draw(COUNTS),
        cache_read=read,
        cache_write=write,
        cache_write_1h=draw(st.integers(0, write)),
        reasoning=draw(COUNTS),
    )


@st.composite
def tiered(draw: st.DrawFn) -> Price:
    starts = sorted(draw(st.sets(st.integers(0, 3 * 10**7), max_size=3)))
    return replace(draw(FLAT), above=tuple((start, draw(FLAT)) for start in starts))


def in_decimals(tokens: Tokens, price: Price) -> int:
    """The same, as an accountant would: USD per token, and rounded up at the end."""
    reached = [dearer for start, dearer in price.above if tokens.prompt > start]
    price = reached[-1] if reached else price

    def dollars(count: int, pico: int) -> Decimal:
        return Decimal(count) * Decimal(pico) / Decimal(10**12)

    total = (
        dollars(tokens.prompt - tokens.cache_read - tokens.cache_write, price.input)
        + dollars(tokens.cache_read, price.cache_read)
        + dollars(tokens.cache_write - tokens.cache_write_1h, price.cache_write)
        + dollars(tokens.cache_write_1h, price.cache_write_1h)
        + dollars(tokens.completion, price.output)
    )
    return int((total * NANO_PER_USD).to_integral_value(ROUND_CEILING))


@given(counted(), tiered())
def test_the_cost_is_what_decimal_arithmetic_says(tokens: Tokens, price: Price) -> None:
    """A bill that differs from the price list by a hair differs by dollars after a million requests."""
    cost = cost_nano(tokens, price)
    assert type(cost) is int
    assert cost == in_decimals(tokens, price)


@given(st.builds(Tokens, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS), FLAT)
def test_no_answer_earns_money(tokens: Tokens, price: Price) -> None:
    """Upstreams may say anything (more cached than sent, more kept than written): it must not lower what is spent."""
    assert cost_nano(tokens, price) >= cost_nano(Tokens(completion=tokens.completion), price) >= 0


@given(counted(), counted(), FLAT)
def test_it_is_rounded_once_and_up(one: Tokens, other: Tokens, price: Price) -> None:
    """Rounding per kind of token would charge up to five times as much for tiny answers; rounding down, nothing."""
    together = Tokens(
        one.prompt + other.prompt,
        one.completion + other.completion,
        one.cache_read + other.cache_read,
        one.cache_write + other.cache_write,
        one.cache_write_1h + other.cache_write_1h,
    )
    apart = cost_nano(one, price) + cost_nano(other, price)
    assert cost_nano(together, price) <= apart <= cost_nano(together, price) + 1


@given(counted(), FLAT)
def test_reasoning_is_part_of_the_completion(tokens: Tokens, price: Price) -> None:
    """Counted again it would be paid twice."""
    assert cost_nano(tokens, price) == cost_nano(replace(tokens, reasoning=0), price)


@pytest.mark.parametrize(
    ("tokens", "nano"),
    [
        (Tokens(prompt=1), 3_000),
        (Tokens(completion=1), 15_000),
        (Tokens(prompt=1_000_000, completion=1_000_000), 18 * NANO_PER_USD),
        (Tokens(prompt=10, cache_read=10), 3_000),
        (Tokens(prompt=10, cache_write=10), 37_500),
        (Tokens(prompt=10, cache_write=10, cache_write_1h=10), 60_000),
        (Tokens(prompt=10, cache_write=10, cache_write_1h=4), 6 * 3_750 + 4 * 6_000),
        (Tokens(), 0),
    ],
)
def test_a_known_price_list(tokens: Tokens, nano: int) -> None:
    """3 USD in, 15 USD out, a tenth for cache reads, 1.25 and 2 times for cache writes, per million."""
    fresh, output, read, write, write_1h = (per_million(Decimal(each)) for each in ("3", "15", "0.3", "3.75", "6"))
    price = Price(fresh, output, read, write, write_1h)
    assert cost_nano(tokens, price) == nano


def test_a_long_prompt_costs_the_tier_above_for_all_of_its_tokens() -> None:
    """The tier begins after its number, and counts for the whole request, as vendors bill it."""
    price = Price(1_000, 2_000, 0, 0, 0, above=((100, Price(5_000, 7_000, 0, 0, 0)), (200, Price(9_000, 0, 0, 0, 0))))
    assert cost_nano(Tokens(prompt=100, completion=1), price) == 100 + 2
    assert cost_nano(Tokens(prompt=101, completion=1), price) == 505 + 7
    assert cost_nano(Tokens(prompt=201, completion=1), price) == 9 * 201


@given(counted())
def test_what_is_free_costs_nothing(tokens: Tokens) -> None:
    assert cost_nano(tokens, FREE) == 0


@given(st.decimals(0, 10_000, places=8))
def test_prices_are_whole_pico_dollars(price: Decimal) -> None:
    """0.1 USD per million is 100,000 pico-dollars per token, not 99,999."""
    exact = price * 10**6
    assert per_million(price) == int(exact.to_integral_value(ROUND_HALF_UP))
    assert abs(per_million(price) - exact) <= Decimal("0.5")


@given(st.integers(0, 2**53 // 10**6))
def test_people_read_the_amount_that_was_computed(micro: int) -> None:
    """What a header shows and what the ledger holds must be the same number."""
    assert round(usd(micro * 1_000) * 10**6) == micro
    assert usd(NANO_PER_USD) == 1.0
