"""A gateway begins with what answers; where nobody named anything and nothing does, with something to try."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import cast

import pytest
from structlog.testing import capture_logs

from app.config.load import load
from app.config.schema import Model
from app.config.settings import Settings, UpstreamSettings
from app.core.clock import SystemClock
from app.core.money import FREE
from app.core.upstream import Upstream
from app.gateway.discovery import BUILTIN, Discovery
from app.gateway.finding import builtin_of, discovered
from app.gateway.gateway import Gateway
from app.recall.embedder import StaticEmbedder, load_embedder, wheel_folder
from app.routing.registry import Registry
from app.simulator.server import simulate
from app.simulator.simulated import Simulated

NOWHERE = "http://127.0.0.1:1"
PRICE = {"input": 1, "output": 2}


class Place:
    """Where a gateway keeps what was found."""

    registry: Registry
    upstreams: Mapping[str, Upstream]


@pytest.fixture
async def sim() -> AsyncIterator[Simulated]:
    async with simulate("ollama") as server:
        yield server


def settings(*upstreams: UpstreamSettings, **models: Model) -> Settings:
    made = load({})
    named = {each.name: each for each in upstreams}
    return replace(made, upstreams=named, models={name.replace("__", "/"): model for name, model in models.items()})


def ollama(url: str, name: str = "ollama", *, probed: bool = False) -> UpstreamSettings:
    return UpstreamSettings(name, "ollama", (url,), local=True, probed=probed)


@contextlib.asynccontextmanager
async def found(
    settings: Settings, embedder: StaticEmbedder | None = None
) -> AsyncIterator[tuple[Place, Discovery, bool]]:
    place = Place()
    async with contextlib.AsyncExitStack() as stack:
        discovery, simulated = await discovered(settings, cast(Gateway, place), embedder, stack, SystemClock())
        yield place, discovery, simulated


async def test_what_answers_is_what_there_is(sim: Simulated) -> None:
    with capture_logs() as logs:
        async with found(settings(ollama(sim.base_url))) as (place, discovery, simulated):
            assert not simulated and list(place.upstreams) == ["ollama", "tierway"]
            assert place.registry.get("ollama/sim-small") is not None
            assert {each.upstream: each.error for each in discovery.found} == {"ollama": None, "tierway": None}
    (line,) = [entry for entry in logs if entry["event"] == "upstream answers"]
    assert (line["upstream"], line["models"]) == ("ollama", 2)


async def test_prices_are_the_operators_else_what_is_known(sim: Simulated) -> None:
    """A local model is free unless somebody says what it costs."""
    priced = Model.model_validate({"price": PRICE})
    named = settings(ollama(sim.base_url), **{"ollama__sim-small": priced})
    async with found(named, load_embedder(wheel_folder())) as (place, _, _):
        prices = {each.id: each.price for each in place.registry.cards}
    small = prices.pop("ollama/sim-small")
    assert small is not None and (small.input, small.output) == (1_000_000, 2_000_000)
    assert "tierway/static" in prices and set(prices.values()) == {FREE}


async def test_who_named_an_upstream_that_is_away_gets_no_simulation() -> None:
    """Answers that nobody ordered would look like real ones."""
    with capture_logs() as logs:
        async with found(settings(ollama(NOWHERE))) as (place, discovery, simulated):
            assert not simulated and list(place.upstreams) == ["ollama", "tierway"]
            assert next(each for each in discovery.found if each.upstream == "ollama").error
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["upstream does not answer"]


async def test_where_nobody_named_one_the_one_that_answers_is_taken(sim: Simulated) -> None:
    there, away = ollama(sim.base_url, probed=True), ollama(NOWHERE, "other", probed=True)
    async with found(settings(there, away)) as (place, _, simulated):
        assert not simulated and place.registry.get("ollama/sim-small") is not None


async def test_where_nobody_named_one_and_none_answers_there_are_simulated_ones() -> None:
    async with found(settings(ollama(NOWHERE, probed=True))) as (place, discovery, simulated):
        assert simulated and all(card.simulated for card in place.registry.cards if card.upstream != "tierway")
        kinds = {each.kind for each in discovery.found if each.kind != BUILTIN}
        assert len(kinds) > 1 and all(each.error is None for each in discovery.found)
        assert any(card.price not in (None, FREE) for card in place.registry.cards), "one of them is paid"


async def test_the_builtin_upstream_ends_with_its_threads() -> None:
    async with contextlib.AsyncExitStack() as stack:
        builtin = builtin_of(None, stack)
        assert builtin.name == "tierway" and await builtin.cards() == ()
