"""Builds the adapter of each configured upstream. A new OpenAI-like vendor is configuration only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from app.config.schema import Model
from app.config.settings import UpstreamSettings
from app.core.buffers import Buffers
from app.core.clock import Clock
from app.core.upstream import Upstream
from app.upstreams.breaker import BreakerSettings
from app.upstreams.claude import ClaudeUpstream
from app.upstreams.connection import nobody_counts
from app.upstreams.http import Clocks, HttpTransport
from app.upstreams.ollama import OllamaUpstream
from app.upstreams.openai import OpenAIUpstream
from app.upstreams.vllm import VllmUpstream

KEEPALIVE_SECONDS: Final = {"anthropic": 30.0}
"""How long idle connections are kept, where the server is known to keep them longer than uvicorn's 5 s."""


def adapter(
    settings: UpstreamSettings,
    notes: Mapping[str, Model],
    clock: Clock,
    buffers: Buffers | None = None,
    held: Callable[[int], None] = nobody_counts,
) -> Upstream:
    """The adapter of one upstream, with a connection pool of its own. `buffers` bound what its streams may hold, and
    `held` is told of what waits there."""
    timeouts = settings.timeouts
    clocks = Clocks(timeouts.connect, timeouts.first_token, timeouts.idle, timeouts.total)
    keepalive = KEEPALIVE_SECONDS.get(settings.kind, 4.0)
    transport = HttpTransport(keepalive=keepalive, buffers=buffers, held=held)
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    name, url, local = settings.name, settings.base_urls[0], settings.local
    match settings.kind:
        case "ollama":
            return OllamaUpstream(
                name,
                transport,
                base_url=url,
                api_key=key,
                clocks=clocks,
                cold_start=timeouts.cold_start,
                num_ctx=_windows(name, notes),
                local=local,
            )
        case "vllm":
            return VllmUpstream(
                name, base_urls=settings.base_urls, api_key=key, local=local, clocks=clocks, transport=transport
            )
        case "anthropic":
            return ClaudeUpstream(name, transport, clock, api_key=key, base_url=url, clocks=clocks, local=local)
        case "openai":
            return OpenAIUpstream(name, base_url=url, api_key=key, local=local, clocks=clocks, transport=transport)


def breaker_settings(settings: UpstreamSettings) -> BreakerSettings:
    breaker = settings.breaker
    return BreakerSettings(
        failures=breaker.failures,
        window=breaker.window,
        rate=breaker.rate,
        open=breaker.open,
        max_open=breaker.max_open,
        successes=breaker.successes,
    )


def _windows(upstream: str, notes: Mapping[str, Model]) -> Mapping[str, int]:
    """The window to open for each model of this upstream that has one written down, by its name there."""
    prefix = f"{upstream}/"
    return {
        model_id.removeprefix(prefix): note.num_ctx
        for model_id, note in notes.items()
        if model_id.startswith(prefix) and note.num_ctx is not None
    }
