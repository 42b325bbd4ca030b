"""What there is, looked at without serving: `tierway check` asks the store and every upstream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from app.access.keys import KeyRecord, Keys
from app.config.settings import Settings
from app.core.clock import SystemClock
from app.core.errors import GatewayError
from app.core.upstream import Upstream
from app.gateway.adapters import adapter
from app.gateway.discovery import LIST_SECONDS, Discovery, Found, Notes
from app.gateway.finding import builtin_of
from app.recall.embedder import load_embedder, wheel_folder
from app.routing.registry import Registry
from app.store.opening import open_store


@dataclass(frozen=True, slots=True)
class Inspection:
    """What there is. `causes`: why each upstream is away that is, for the operator's eyes only."""

    found: tuple[Found, ...]
    registry: Registry
    keys: tuple[KeyRecord, ...]
    causes: Mapping[str, str]


async def inspected(settings: Settings) -> Inspection:
    """What there is, without serving: opens the store and asks every upstream."""
    async with contextlib.AsyncExitStack() as stack:
        url = None if settings.redis_url is None else settings.redis_url.get_secret_value()
        store = await stack.enter_async_context(open_store(url, settings.data_dir))
        clock = SystemClock()
        upstreams: list[Upstream] = [
            adapter(upstream, settings.models, clock) for upstream in settings.upstreams.values()
        ]
        for upstream in upstreams:
            stack.push_async_callback(upstream.close)
        upstreams.append(builtin_of(load_embedder(wheel_folder()), stack))
        registries: list[Registry] = []
        notes = Notes(settings.models, settings.only_listed_models, settings.aliases)
        discovery = Discovery(upstreams, notes, lambda card, note: None, registries.append, lambda found: None)
        await discovery.refresh()
        away = {found.upstream for found in discovery.found if found.error is not None}
        causes = {upstream.name: await _cause(upstream) for upstream in upstreams if upstream.name in away}
        keys = await Keys(store, clock).list()
        return Inspection(discovery.found, registries[-1], keys, causes)


async def _cause(upstream: Upstream) -> str:
    """Why it is away, in the words of what failed, which may hold addresses; empty where it has no words."""
    try:
        async with asyncio.timeout(LIST_SECONDS):
            await upstream.cards()
    except (GatewayError, TimeoutError) as error:
        return str(error.__cause__ or "")
    return ""
