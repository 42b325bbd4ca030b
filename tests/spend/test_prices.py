"""Prices are those the vendor bills, in integers; what is unknown is unknown."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from genai_prices import data_snapshot
from genai_prices.types import ClauseEquals, ModelInfo, ModelPrice

from app.config.schema import Kind, PriceOverride
from app.config.settings import UpstreamSettings
from app.core.money import FREE, Price, Tokens, cost_nano
from app.spend import prices
from app.spend.prices import price_of

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC).timestamp()
MICRO = 1_000_000  # USD per million -> pico-dollars per token


def upstream(kind: Kind, *urls: str, local: bool = False) -> UpstreamSettings:
    return UpstreamSettings("x", kind, urls or ("https://api.anthropic.com",), local=local)


def vendor(url: str, model: str) -> Price | None:
    return price_of(upstream("openai", url), model, None, NOW)


@pytest.mark.parametrize(
    ("model", "usd"),
    [
        ("claude-opus-5-5", (4, 20, 0.2, 5, 8)),
        ("claude-sonnet-5-5", (2, 10, 0.1, 2.5, 4)),
        ("claude-haiku-4-5", (1, 5, 0.1, 1.25, 2)),
        ("claude-haiku-4-5-20251001", (1, 5, 0.1, 1.25, 2)),
        ("claude-sonnet-4-6", (3, 15, 0.3, 3.75, 6)),
    ],
)
def test_claude_costs_what_the_price_list_says(model: str, usd: tuple[float, ...]) -> None:
    price = price_of(upstream("anthropic"), model, None, NOW)
    fresh, output, read, write, write_1h = (round(each * MICRO) for each in usd)
    assert price == Price(fresh, output, read, write, write_1h)


def test_long_prompts_cost_the_long_price() -> None:
    price = price_of(upstream("anthropic"), "claude-haiku-5-5", None, NOW)
    assert price is not None
    assert price.above == ((100_000, Price(500_000, 2_500_000, 50_000, 625_000, 1_000_000)),)
    assert cost_nano(Tokens(prompt=100_000), price) == 100_000 * 100
    assert cost_nano(Tokens(prompt=100_001), price) == 100_001 * 500


def test_prices_agree_with_the_library_s_own_arithmetic() -> None:
    """Every tier and kind of token of every Claude, computed both ways."""
    provider = next(each for each in data_snapshot.get_snapshot().providers if each.id == "anthropic")
    for info in provider.models:
        price = price_of(upstream("anthropic"), info.id, None, NOW)
        if price is None or provider.find_model(info.id) is not info:
            continue
        for prompt in (1_000, 99_999, 100_001, 250_000):
            tokens = Tokens(prompt=prompt, completion=500, cache_read=300)
            usage = {"input_tokens": prompt, "output_tokens": 500, "cache_read_tokens": 300}
            theirs = info.calc_price(usage, provider, genai_request_timestamp=datetime.fromtimestamp(NOW, UTC))
            if info.get_prices(datetime.fromtimestamp(NOW, UTC)).cache_read_mtok is not None:
                assert cost_nano(tokens, price) == pytest.approx(float(theirs.total_price) * 1e9, rel=1e-9), info.id


@pytest.mark.parametrize("model", ["claude-mythos-5", "claude-opus-99", "rnj-1", "", "claude"])
def test_an_unknown_model_has_no_price_rather_than_zero(model: str) -> None:
    assert price_of(upstream("anthropic"), model, None, NOW) is None


@pytest.mark.parametrize("kind", ["ollama", "vllm", "openai", "anthropic"])
def test_a_local_model_is_free_unless_priced(kind: Any) -> None:
    here = upstream(kind, "http://127.0.0.1:1", local=True)
    assert price_of(here, "gpt-4o", None, NOW) == FREE
    priced = price_of(here, "gpt-4o", PriceOverride(input=Decimal(1), output=Decimal(2)), NOW)
    assert priced is not None
    assert (priced.input, priced.output) == (1 * MICRO, 2 * MICRO)


@pytest.mark.parametrize("kind", ["ollama", "vllm"])
def test_a_remote_server_of_these_kinds_has_no_price(kind: Any) -> None:
    assert price_of(upstream(kind, "https://api.openai.com"), "gpt-4o", None, NOW) is None


@pytest.mark.parametrize("url", ["https://api.openai.com", "https://api.openai.com:443", "https://api.openai.com/eu"])
def test_a_known_server_has_its_vendor_s_prices(url: str) -> None:
    price = vendor(url, "gpt-4o")
    assert price is not None
    assert (price.input, price.output, price.cache_read) == (2_500_000, 10_000_000, 1_250_000)


@pytest.mark.parametrize(
    "url",
    [
        *("http://10.0.0.7:8000", "https://api.openai.com.example", "https://openai.proxy.example/api.openai.com"),
        *("http://api.openai.com", "https://mine.openai.azure.com", "https://me--llm.modal.run"),
    ],
)
def test_a_model_that_merely_shares_a_name_has_no_price(url: str) -> None:
    """A server in the cellar that calls its model gpt-4o must not eat a budget, nor pass for billed."""
    assert vendor(url, "gpt-4o") is None


def test_a_pattern_with_an_open_top_level_domain_still_ends_there() -> None:
    assert vendor("https://api.moonshot.ai", "kimi-k3") is not None
    assert vendor("https://api.moonshot.ai.example", "kimi-k3") is None


def test_a_pool_over_two_vendors_has_no_price() -> None:
    both = upstream("openai", "https://api.openai.com", "https://api.groq.com/openai")
    assert price_of(both, "gpt-4o", None, NOW) is None


def test_an_embedding_model_has_a_price() -> None:
    price = vendor("https://api.openai.com", "text-embedding-3-small")
    assert price is not None
    assert cost_nano(Tokens(prompt=1_000_000), price) == 20_000_000


def test_what_is_billed_per_request_has_no_price_per_token() -> None:
    assert vendor("https://api.perplexity.ai", "sonar") is None


def test_the_dearest_hour_counts() -> None:
    """A price that is true only at night would let a budget be passed by day."""
    for hour in (2, 12, 20):
        now = datetime(2026, 11, 1, hour, tzinfo=UTC).timestamp()
        price = price_of(upstream("openai", "https://api.deepseek.com"), "deepseek-chat", None, now)
        assert price is not None
        assert price.input == 270_000


def test_a_reasoning_token_that_costs_more_is_not_forgotten() -> None:
    listed = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2), output_reasoning_mtok=Decimal(3))
    info = ModelInfo(id="m", match=ClauseEquals("m"), prices=listed)
    price = prices._listed(info, datetime.fromtimestamp(NOW, UTC))
    assert price == Price(1 * MICRO, 3 * MICRO, 1 * MICRO, 1 * MICRO, 1 * MICRO)


def test_the_operator_s_price_wins_and_is_exact() -> None:
    said = PriceOverride.model_validate({"input": 4.0, "output": 20.0, "cache_read": 0.2, "cache_write": 5.0})
    price = price_of(upstream("anthropic"), "claude-opus-5-5", said, NOW)
    assert price == Price(4_000_000, 20_000_000, 200_000, 5_000_000, 8_000_000)


def test_cache_prices_that_were_not_said_are_never_too_low() -> None:
    said = PriceOverride(input=Decimal("0.1"), output=Decimal("0.3"))
    assert price_of(upstream("openai", "http://h"), "m", said, NOW) == Price(
        100_000, 300_000, 100_000, 125_000, 200_000
    )


def test_a_price_of_zero_is_a_price() -> None:
    said = PriceOverride(input=Decimal(0), output=Decimal(0))
    assert price_of(upstream("openai", "http://h"), "m", said, NOW) == FREE


def test_without_anthropic_in_the_library_claude_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_snapshot, "get_snapshot", lambda: SimpleNamespace(providers=[]))
    assert price_of(upstream("anthropic"), "claude-opus-5-5", None, NOW) is None
