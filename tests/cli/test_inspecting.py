"""Looking at what there is must tell what serving would find, and leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.cli.inspecting import _cause, inspected
from app.config.settings import UpstreamSettings
from app.core.clock import SystemClock
from app.gateway.adapters import adapter
from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from tests.test_main import NOWHERE, ollama, settings


@pytest.fixture
async def sim() -> AsyncIterator[Simulated]:
    async with simulate("ollama") as server:
        yield server


async def test_what_answers_can_be_looked_at_without_serving(tmp_path: Path, sim: Simulated) -> None:
    tasks = asyncio.all_tasks()
    gpu = UpstreamSettings("gpu", "vllm", (NOWHERE,), local=True)
    seen = await inspected(settings(tmp_path, ollama(sim.base_url), gpu))
    here, away, builtin = seen.found
    assert (here.upstream, here.models, here.error) == ("ollama", 2, None)
    assert away.upstream == "gpu" and away.error and list(seen.causes) == ["gpu"] and seen.causes["gpu"]
    assert builtin.upstream == "tierway" and seen.keys == ()
    assert seen.registry.get("ollama/sim-small") and seen.registry.get("tierway/static")
    assert asyncio.all_tasks() == tasks


async def test_an_upstream_that_comes_back_meanwhile_has_no_cause(sim: Simulated) -> None:
    upstream = adapter(ollama(sim.base_url), {}, SystemClock())
    assert await _cause(upstream) == ""
    await upstream.close()
