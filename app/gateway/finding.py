"""Finds what there is when a gateway starts: makes an adapter for each upstream, asks them all for their models, and
starts simulated ones where nobody named any and none answers.

A part of the composition root; asking again later is `discovery`'s.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from app.config.schema import Model
from app.config.settings import Settings
from app.core.buffers import Buffers
from app.core.card import Card
from app.core.clock import Clock
from app.core.money import Price
from app.core.pool import CpuPool
from app.gateway.adapters import adapter
from app.gateway.discovery import BUILTIN, Discovery, Found, Notes
from app.gateway.gateway import Gateway
from app.recall.embedder import BuiltinUpstream, StaticEmbedder
from app.routing.registry import Registry
from app.simulator.server import default_tiers
from app.spend.prices import price_of
from app.telemetry.logs import get_logger
from app.upstreams.connection import nobody_counts

log = get_logger("tierway")


def nothing_known(discovery: Discovery) -> None:
    """It is the first gateway."""


async def discovered(
    settings: Settings,
    gateway: Gateway,
    embedder: StaticEmbedder | None,
    stack: contextlib.AsyncExitStack,
    clock: Clock,
    held: Callable[[int], None] = nobody_counts,
    known: Callable[[Discovery], None] = nothing_known,
) -> tuple[Discovery, bool]:
    """Asks the configured upstreams for their models. Where nobody named one and none answers, simulated ones start.
    `held` is told of what waits of their answers; `known` tells of upstreams what was known before."""
    builtin = builtin_of(embedder, stack)
    discovery = await _discover(settings, builtin, gateway, stack, clock, held, known=known)
    named = any(not upstream.probed for upstream in settings.upstreams.values())
    if named or any(found.error is None for found in discovery.found if found.kind != BUILTIN):
        return discovery, False
    tiers = await stack.enter_async_context(default_tiers())
    settings = replace(settings, upstreams=tiers.upstreams, models={**settings.models, **tiers.models})
    return await _discover(settings, builtin, gateway, stack, clock, held, simulated=True), True


def builtin_of(embedder: StaticEmbedder | None, stack: contextlib.AsyncExitStack) -> BuiltinUpstream:
    pool = CpuPool()
    stack.callback(pool.close)
    return BuiltinUpstream(embedder, pool)


async def _discover(
    settings: Settings,
    builtin: BuiltinUpstream,
    gateway: Gateway,
    stack: contextlib.AsyncExitStack,
    clock: Clock,
    held: Callable[[int], None],
    *,
    simulated: bool = False,
    known: Callable[[Discovery], None] = nothing_known,
) -> Discovery:
    buffers = Buffers.of(settings.streaming.buffer_bytes)
    adapters = [adapter(upstream, settings.models, clock, buffers, held) for upstream in settings.upstreams.values()]
    for upstream in adapters:
        stack.push_async_callback(upstream.close)
    gateway.upstreams = {upstream.name: upstream for upstream in (*adapters, builtin)}

    def publish(registry: Registry) -> None:
        gateway.registry = registry

    def price(card: Card, note: Model | None) -> Price | None:
        owner = settings.upstreams.get(card.upstream)
        override = None if note is None else note.price
        return card.price if owner is None else price_of(owner, card.name, override, clock.now())

    notes = Notes(settings.models, settings.only_listed_models, settings.aliases, simulated)
    discovery = Discovery(list(gateway.upstreams.values()), notes, price, publish, _log_found)
    known(discovery)
    await discovery.refresh()
    return discovery


def _log_found(found: Found) -> None:
    if found.kind == BUILTIN:
        return  # it comes along and cannot be away
    if found.error is None:
        log.info("upstream answers", upstream=found.upstream, models=found.models)
    else:
        log.warning("upstream does not answer", upstream=found.upstream, why=found.error)
