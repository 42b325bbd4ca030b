"""Runs simulated servers: one for a test or the command line, and the three tiers for `make run` without a model.

In a test:

    async with simulate("ollama") as sim:
        sim.fault_next("cut", times=2)
        ... sim.base_url ...
        assert sim.requests[-1].disconnected

What a server does is `simulated`; where the command line puts them is told here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydantic import SecretStr

from app.config.schema import Kind, Model, PriceOverride
from app.config.settings import UpstreamSettings
from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.simulated import Simulated

PORTS: Final[Mapping[str, int]] = {"ollama": 11_434, "vllm": 8_000, "anthropic": 8_001, "openai": 8_002}
"""Where `tierway simulate` puts them: Ollama where a gateway looks for it."""
VARIABLES: Final[Mapping[str, str]] = {
    "ollama": "OLLAMA_BASE_URL",
    "vllm": "VLLM_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "openai": "OPENAI_COMPATIBLE_BASE_URL",
}
KEY: Final = "simulated"


@contextlib.asynccontextmanager
async def simulate(
    kind: str, behaviour: Behaviour | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Simulated]:
    """A simulated server while the context lasts. Raises its own mistakes, if it made any, at the end."""
    async with _serving(kind, behaviour, host, port) as sim:
        yield sim
    if sim.errors:
        raise ExceptionGroup("the simulator failed", sim.errors)


@contextlib.asynccontextmanager
async def _serving(kind: str, behaviour: Behaviour | None, host: str, port: int) -> AsyncIterator[Simulated]:
    sim = Simulated(kind, behaviour)
    await sim.start(host, port)
    try:
        yield sim
    finally:
        await sim.close()


# --- the tiers of a gateway that has no model -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tier:
    """One of the models that answer when nothing real does. `complexity` is the range of scores it is meant for."""

    upstream: str
    kind: Kind
    model: SimModel
    complexity: tuple[float, float]
    price: PriceOverride | None = None


TIERS: Final = (
    Tier("sim-ollama", "ollama", SimModel("sim-small", first_token=0.02, tokens_per_second=200), (0.0, 0.4)),
    Tier(
        "sim-vllm",
        "vllm",
        SimModel("sim-medium", "medium", "30B", 65_536, first_token=0.04, tokens_per_second=150),
        (0.2, 0.7),
    ),
    Tier(
        "sim-claude",
        "anthropic",
        SimModel("claude-sim-large", "large", "?", 1_000_000, 128_000, first_token=0.06, tokens_per_second=100),
        (0.6, 1.0),
        PriceOverride.model_validate({"input": 4, "output": 20, "cache_read": 0.2, "cache_write": 5}),
    ),
)
"""Small and medium cost nothing and are local; large has a list price, so that budgets and savings can be seen."""


@dataclass(frozen=True, slots=True)
class Tiers:
    """What a gateway needs to know of them: settings of upstreams, and notes on models, as from a configuration."""

    upstreams: Mapping[str, UpstreamSettings]
    models: Mapping[str, Model]


@contextlib.asynccontextmanager
async def default_tiers(tiers: Sequence[Tier] = TIERS) -> AsyncIterator[Tiers]:
    """Small, medium and large on ports of their own while the context lasts."""
    async with contextlib.AsyncExitStack() as stack:
        upstreams: dict[str, UpstreamSettings] = {}
        models: dict[str, Model] = {}
        for tier in tiers:
            sim = await stack.enter_async_context(_serving(tier.kind, Behaviour((tier.model,)), "127.0.0.1", 0))
            upstreams[tier.upstream] = _settings(tier, sim.base_url)
            models[f"{tier.upstream}/{tier.model.name}"] = Model(complexity=tier.complexity, price=tier.price)
        yield Tiers(MappingProxyType(upstreams), MappingProxyType(models))


def _settings(tier: Tier, base_url: str) -> UpstreamSettings:
    away = tier.kind == "anthropic"
    key = SecretStr(KEY) if away else None
    return UpstreamSettings(tier.upstream, tier.kind, (base_url,), key, local=not away)
