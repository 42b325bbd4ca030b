"""What is held must be enough for whatever the upstream may bill, and what is lowered must fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.card import Ability, Card
from app.core.errors import Unbounded, UnsupportedParameter
from app.core.money import FREE, Price, Tokens, cost_nano
from app.core.request import EmbeddingRequest, Request
from app.spend.bounds import (
    DEFAULT_MAX_TOKENS,
    EXPECTED_TOKENS,
    LEAST_TOKENS,
    Bound,
    affordable,
    bound,
    expected,
    hold_nano,
)
from app.wire import chat, messages, ollama
from tests.spend.bounds_cases import GPT, OTHER, TERMS, ask, ask_claude, card, image

CLAUDE = card()
PICO = st.integers(0, 10**9)
PLAIN = st.builds(Price, PICO, PICO, PICO, PICO, PICO)
PRICES = st.builds(
    lambda price, above: replace(price, above=tuple(sorted(above, key=lambda tier: tier[0]))),
    PLAIN,
    st.lists(st.tuples(st.integers(0, 3_000), PLAIN), max_size=3),
)
BOUNDS = st.builds(
    lambda prompt, room, choices, cache, thinking: Bound(
        prompt, room * choices, room, choices, cache=cache, thinking=thinking
    ),
    st.integers(0, 4_000),
    st.integers(0, 4_000),
    st.integers(1, 4),
    st.sampled_from([None, "5m", "1h"]),
    st.sampled_from(["shown", "hidden", "silent"]),
)


@given(BOUNDS, PRICES, st.data())
def test_no_bill_within_the_bound_is_above_the_hold(limit: Bound, price: Price, data: st.DataObject) -> None:
    """Whatever was fresh, read from a cache or written to one, and whichever tier its length falls into."""
    prompt = data.draw(st.integers(0, limit.prompt_tokens))
    read = data.draw(st.integers(0, prompt))
    write = data.draw(st.integers(0, prompt - read)) if limit.cache else 0
    hour = data.draw(st.integers(0, write)) if limit.cache == "1h" else 0
    completion = data.draw(st.integers(0, limit.completion_tokens))
    assert cost_nano(Tokens(prompt, completion, read, write, hour), price) <= hold_nano(limit, price)


@given(BOUNDS, PRICES, st.integers(0, 10**13))
def test_what_is_lowered_fits_and_nothing_longer_does(limit: Bound, price: Price, left: int) -> None:
    lowered = affordable(limit, price, left)
    if lowered is None:
        least = min(LEAST_TOKENS if limit.thinking == "shown" else 1_024, limit.max_tokens)
        assert hold_nano(_with(limit, least), price) > left
        return
    assert hold_nano(lowered, price) <= left
    assert lowered.max_tokens <= limit.max_tokens
    assert lowered.completion_tokens == lowered.max_tokens * limit.choices
    if lowered.max_tokens < limit.max_tokens:
        assert hold_nano(_with(limit, lowered.max_tokens + 1), price) > left


def _with(limit: Bound, room: int) -> Bound:
    return limit._replace(max_tokens=room, completion_tokens=room * limit.choices)


def test_the_hold_worked_out_by_hand() -> None:
    """1,000 tokens in at 2 and 4 x 100 out at 10 USD per M: 2,000 + 4,000 millionths; written for an hour: 4 + 4."""
    price = Price(2_000_000, 10_000_000, 200_000, 2_500_000, 4_000_000)
    plain = Bound(1_000, 400, 100, 4)
    assert hold_nano(plain, price) == 6_000_000
    assert hold_nano(plain._replace(cache="5m"), price) == 6_500_000
    assert hold_nano(plain._replace(cache="1h"), price) == 8_000_000
    long = replace(price, above=((999, Price(4_000_000, 20_000_000, 0, 0, 0)),))
    assert hold_nano(plain, long) == 12_000_000
    assert hold_nano(plain._replace(prompt_tokens=999), long) == 5_998_000
    assert hold_nano(plain, FREE) == 0


def test_three_of_twelve_cents_leave_nine() -> None:
    """A budget of 0.45 USD, a request of 0.12: the fourth gets an answer for 9 cents, where that is allowed."""
    price, limit = Price(0, 10_000_000, 0, 0, 0), Bound(0, 12_000, 12_000)
    assert hold_nano(limit, price) == 120_000_000
    lowered = affordable(limit, price, 90_000_000)
    assert lowered is not None and lowered.max_tokens == 9_000


def test_answers_not_worth_paying_for_are_not_made() -> None:
    price = Price(0, 1_000_000, 0, 0, 0)  # a thousand nano-dollars a token
    shown, hidden = Bound(0, 4_000, 4_000, thinking="shown"), Bound(0, 4_000, 4_000, thinking="hidden")
    assert affordable(shown, price, 15_999) is None and affordable(shown, price, 16_000) is not None
    assert affordable(hidden, price, 1_000_000) is None and affordable(hidden, price, 1_024_000) is not None
    short = Bound(0, 3, 3, thinking="hidden")
    assert affordable(short, price, 3_000) == short, "what the caller itself wants that short is"


CODECS: dict[str, Any] = {"anthropic": messages, "openai": chat, "vllm": chat, "ollama": ollama}
LIMITS: tuple[dict[str, int], ...] = (
    {},
    {"max_tokens": 77},
    {"max_completion_tokens": 77},
    {"max_tokens": 88, "max_completion_tokens": 77},
)


@pytest.mark.parametrize("kind", CODECS)
@pytest.mark.parametrize("said", LIMITS)
def test_the_bound_is_what_goes_on_the_wire(kind: str, said: dict[str, int]) -> None:
    """The limit that money is held for is the one that the upstream gets, whatever the caller's body says."""
    model, request = card("gpt-6-luna" if kind != "anthropic" else "claude-opus-5-5", kind), ask(**said)
    limit = bound(request, model)
    assert limit.max_tokens == 77 if said else limit.max_tokens > 0
    for most in (limit.max_tokens, 33):
        body = orjson.loads(CODECS[kind].write_request(replace(request, max_tokens=most), model).body)
        body |= body.pop("options", {})
        assert [body[name] for name in body if name.startswith(("max_", "num_predict"))] == [most]


def test_a_native_request_is_held_to_what_its_model_gives() -> None:
    assert bound(ask_claude(max_tokens=500_000), CLAUDE).max_tokens == 128_000
    assert bound(ask_claude(max_tokens=500_000), card(max_output=9_000)).max_tokens == 9_000
    assert bound(ask_claude(max_tokens=0), CLAUDE).completion_tokens == 0


@pytest.mark.parametrize(
    ("model", "most"),
    [
        (card("claude-haiku-4-5"), 8_192),
        (CLAUDE, 32_000),
        (GPT, 128_000),
        (card("gpt-4o", "openai", max_output=500), 500),
        (OTHER, DEFAULT_MAX_TOKENS),
    ],
)
def test_without_a_limit_of_the_callers_the_models_own_counts(model: Card, most: int) -> None:
    assert bound(ask(), model).max_tokens == most


def test_every_choice_counts() -> None:
    limit = bound(ask(n=3, max_tokens=10), GPT)
    assert (limit.completion_tokens, limit.max_tokens, limit.choices) == (30, 10, 3)


@pytest.mark.parametrize(
    ("request_", "model", "thinking"),
    [
        (ask(), CLAUDE, "hidden"),
        (ask(), card("claude-haiku-4-5"), "shown"),
        (ask(reasoning_effort="low"), card("claude-haiku-4-5"), "hidden"),
        (ask(thinking={"type": "enabled", "budget_tokens": 2_000}), card("claude-haiku-4-5"), "hidden"),
        (ask(), GPT, "silent"),
        (ask(reasoning_effort="none"), GPT, "shown"),
        (ask(), card("gpt-6-luna", "openai", abilities=frozenset({Ability.CHAT})), "shown"),
        (ask(), card("q", "vllm"), "shown"),
    ],
)
def test_thinking_that_nobody_sees_is_known_of(request_: Request, model: Card, thinking: str) -> None:
    assert bound(request_, model).thinking == thinking


def test_the_dearest_way_to_write_a_cache_is_known_of() -> None:
    assert bound(ask(), CLAUDE).cache is None
    assert bound(ask(cache_control={"type": "ephemeral", "ttl": "1h"}), CLAUDE).cache == "1h"


def test_what_has_no_bound_is_refused_or_guessed() -> None:
    with pytest.raises(Unbounded):
        bound(ask(image()), OTHER)
    with pytest.raises(Unbounded):
        bound(ask(web_search_options={}), GPT)
    assert bound(ask(web_search_options={}), GPT, strict=False).prompt_tokens > 0
    with pytest.raises(UnsupportedParameter):
        bound(ask(tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="required"), CLAUDE)


def embeds(*inputs: Any) -> EmbeddingRequest:
    return EmbeddingRequest("m", inputs, TERMS, {})


def test_embeddings_cost_their_input() -> None:
    limit = bound(embeds("abc", "日本"), card("text-embedding-3-small", "openai"))
    assert 9 < limit.prompt_tokens < 40 and limit.completion_tokens == limit.max_tokens == 0
    assert bound(embeds((1, 2, 3)), GPT).prompt_tokens >= 3
    assert hold_nano(limit, Price(1_000_000, 99, 0, 0, 0)) == limit.prompt_tokens * 1_000


def test_a_rate_limit_counts_what_is_asked_for() -> None:
    assert expected(ask("a" * 40, max_tokens=7, n=2)) == (10, 14)
    assert expected(ask("a" * 40)) == (10, EXPECTED_TOKENS)
    assert expected(embeds("a" * 40)) == (10, 0)
    assert expected(embeds((1, 2))) == (2, 0)
