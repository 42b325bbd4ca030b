"""The resolved configuration as the rest of the program reads it: plain frozen values, no parsing, no environment.

`load` makes it; a test may just as well write `Settings(limits=Limits(in_flight=1))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import SecretStr

from app.config.features import FEATURES
from app.config.schema import (
    Breaker,
    BudgetPolicy,
    BudgetRule,
    Kind,
    Limits,
    Model,
    Overrides,
    Routing,
    Sessions,
    Streaming,
    Timeouts,
)
from app.config.values import empty

ALIASES_WITHOUT_FILE: Final[Mapping[str, str]] = MappingProxyType({"gpt-*": "auto", "o[1-9]*": "auto"})


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One server, or a pool of equal ones. `base_urls` have no `/v1` at their end. `probed`: nobody named it, so it is
    only tried, and its absence is no error. `ceiling_said`: `max_concurrency` is an operator's word, and not
    only the usual one of its kind."""

    name: str
    kind: Kind
    base_urls: tuple[str, ...]
    api_key: SecretStr | None = None
    local: bool = False
    max_concurrency: int = 32
    ceiling_said: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)
    breaker: Breaker = field(default_factory=Breaker)
    cost_per_hour: Decimal = Decimal(0)
    probed: bool = False


@dataclass(frozen=True, slots=True)
class FlagSettings:
    """`start` is the share (0..1) each flag starts with; `named` are those the environment names; with `locked` the
    environment's word about these cannot be overridden."""

    start: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType({name: float(feature.default) for name, feature in FEATURES.items()})
    )
    named: frozenset[str] = frozenset()
    locked: bool = False
    overrides: Overrides = field(default_factory=Overrides)


@dataclass(frozen=True, slots=True)
class Settings:
    """`config_path` None: there is no file. `openfeature` is the place of a provider of flags. `version` is a hash of
    all that decides about requests, without secrets, and without what may differ between replicas. `sources` says
    which variable each secret came from, by its path."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    admin_key: SecretStr | None = None
    data_dir: Path = Path("/var/lib/tierway")
    log_level: str = "info"
    log_format: str = "json"
    allow_anonymous: bool = False
    redis_url: SecretStr | None = None
    config_path: Path | None = None
    upstreams: Mapping[str, UpstreamSettings] = field(default_factory=empty)
    models: Mapping[str, Model] = field(default_factory=empty)
    only_listed_models: bool = False
    aliases: Mapping[str, str] = field(default_factory=lambda: ALIASES_WITHOUT_FILE)
    routing: Routing = field(default_factory=Routing)
    budgets: tuple[BudgetRule, ...] = ()
    budget: BudgetPolicy = field(default_factory=BudgetPolicy)
    sessions: Sessions = field(default_factory=Sessions)
    streaming: Streaming = field(default_factory=Streaming)
    limits: Limits = field(default_factory=Limits)
    flags: FlagSettings = field(default_factory=FlagSettings)
    openfeature: str | None = None
    version: str = ""
    sources: Mapping[tuple[str, ...], str] = field(default_factory=lambda: MappingProxyType({}))


def upstream_settings(settings: Settings) -> Mapping[str, UpstreamSettings]:
    """The upstreams by name: the file's, else those the environment names."""
    return settings.upstreams


def same_upstreams(one: Settings, other: Settings) -> frozenset[str]:
    """The names that mean the same servers in both."""
    return frozenset(
        name
        for name, upstream in one.upstreams.items()
        if (there := other.upstreams.get(name)) is not None
        and (there.kind, there.base_urls) == (upstream.kind, upstream.base_urls)
    )
