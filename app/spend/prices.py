"""What a model costs, from the configuration or the price library, in integers. Counting spend is left to others.

Unknown is None, never zero, and never a guess: a model at a server nobody knows does not get a vendor's price because
it has the same name. Where a price depends on something we do not see (the hour, what an output token was), the dearest
counts, so that a budget is never passed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from urllib.parse import urlsplit

from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

from app.config.schema import PriceOverride
from app.config.settings import UpstreamSettings
from app.core.money import FREE, Price, per_million

CACHE_WRITE_FACTOR: Final = Decimal("1.25")
CACHE_WRITE_1H_FACTOR: Final = Decimal(2)
"""What writing to a prompt cache costs, in input prices, wherever a vendor charges for it."""

CUSTOMERS_NAME_MODELS: Final = frozenset({"azure", "modal"})
"""Providers where a model's name is the customer's choice, and so says nothing about its price."""


def price_of(upstream: UpstreamSettings, model: str, override: PriceOverride | None, now: float) -> Price | None:
    """The price of `model`, under the upstream's own name for it, at `now` (seconds since 1970); None is unknown."""
    if override is not None:
        return overridden(override)
    if upstream.local:
        return FREE
    provider = _provider(upstream)
    info = provider.find_model(model) if provider else None
    return _listed(info, datetime.fromtimestamp(now, UTC)) if info else None


def overridden(said: PriceOverride) -> Price:
    """The price that somebody wrote down; what is not said of caches is assumed high."""
    write = said.input * CACHE_WRITE_FACTOR if said.cache_write is None else said.cache_write
    return Price(
        input=per_million(said.input),
        output=per_million(said.output),
        cache_read=per_million(said.input if said.cache_read is None else said.cache_read),
        cache_write=per_million(write),
        cache_write_1h=per_million(max(write, said.input * CACHE_WRITE_1H_FACTOR)),
    )


def _provider(upstream: UpstreamSettings) -> Provider | None:
    """Who sends the bill: the maker of the kind, or whoever all the addresses are known to belong to."""
    providers = data_snapshot.get_snapshot().providers
    if upstream.kind == "anthropic":
        return next((each for each in providers if each.id == "anthropic"), None)
    if upstream.kind != "openai":
        return None
    for provider in providers:
        if all(_belongs(url, provider) for url in upstream.base_urls):
            return None if provider.id in CUSTOMERS_NAME_MODELS else provider
    return None


def _belongs(url: str, provider: Provider) -> bool:
    """Whether the library knows the address; its patterns are open at the end, so `api.openai.com.example` is not."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.hostname}"
    pattern = provider.api_pattern
    if pattern.endswith(r"\."):  # it leaves the top-level domain open
        pattern += r"[a-z]+"
    match = re.match(pattern, f"{origin}{parts.path}/")
    return match is not None and match.end() >= len(origin)


def _listed(info: ModelInfo, at: datetime) -> Price | None:
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    prices = [info.get_prices(midnight + timedelta(hours=hour)) for hour in range(24)]
    if any(each.input_mtok is None or each.requests_kcount is not None for each in prices):
        return None  # not sold by the token, or not only
    values = [value for each in prices for value in vars(each).values() if isinstance(value, TieredPrices)]
    starts = sorted({tier.start for value in values for tier in value.tiers})
    return replace(_dearest(prices, 0), above=tuple((start, _dearest(prices, start + 1)) for start in starts))


def _dearest(prices: list[ModelPrice], prompt: int) -> Price:
    """The highest of each price, for a prompt of so many tokens."""
    columns = zip(*(_row(each, prompt) for each in prices), strict=True)
    fresh, output, read, write, write_1h = (per_million(max(column)) for column in columns)
    return Price(fresh, output, read, write, write_1h)


def _row(price: ModelPrice, prompt: int) -> tuple[Decimal, ...]:
    """Input, output, cache read, cache write and the same for an hour, in USD per million."""
    fresh = _usd(price.input_mtok, prompt) or Decimal(0)
    outputs = [
        usd for each in (price.output_mtok, price.output_reasoning_mtok) if (usd := _usd(each, prompt)) is not None
    ]
    read = _usd(price.cache_read_mtok, prompt)
    write = _usd(price.cache_write_mtok, prompt)
    write = fresh if write is None else write
    write_1h = _usd(price.cache_write_1h_mtok, prompt)
    # an embedding model lists no output, because it has none
    return (
        fresh,
        max(outputs, default=fresh),
        fresh if read is None else read,
        write,
        write if write_1h is None else write_1h,
    )


def _usd(value: Decimal | TieredPrices | None, prompt: int) -> Decimal | None:
    """USD per million tokens when the prompt has so many."""
    if not isinstance(value, TieredPrices):
        return value
    reached = [tier.price for tier in value.tiers if prompt > tier.start]
    return reached[-1] if reached else value.base
