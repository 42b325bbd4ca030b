"""Without these `make run` without a model, or `tierway simulate`, does not come up."""

from __future__ import annotations

import aiohttp
import pytest

from app.simulator.record import Call
from app.simulator.script import Script
from app.simulator.server import PORTS, TIERS, VARIABLES, default_tiers, simulate
from tests.simulator.asking import HEADERS, KINDS, body, post


async def test_mistakes_of_the_simulator_itself_fail_the_test_that_uses_it() -> None:
    def broken(_: Call) -> Script:
        raise RuntimeError("mistake")

    with pytest.raises(ExceptionGroup) as failed:
        async with simulate("openai") as sim:
            sim.face.routes = {"POST /v1/chat/completions": broken}  # type: ignore[misc]  # made wrong on purpose
            with pytest.raises(aiohttp.ClientError):
                await post(sim, body("openai"))
    assert str(failed.value.exceptions[0]) == "mistake"


async def test_three_tiers_come_up_with_all_a_gateway_needs() -> None:
    async with default_tiers() as tiers, aiohttp.ClientSession(headers=HEADERS) as session:
        assert [one.kind for one in tiers.upstreams.values()] == ["ollama", "vllm", "anthropic"]
        assert [one.local for one in tiers.upstreams.values()] == [True, True, False]
        assert tiers.upstreams["sim-claude"].api_key is not None
        for tier in TIERS:
            note = tiers.models[f"{tier.upstream}/{tier.model.name}"]
            assert note.complexity == tier.complexity
            [url] = tiers.upstreams[tier.upstream].base_urls
            path = "/api/tags" if tier.kind == "ollama" else "/v1/models"
            async with session.get(url + path) as reply:
                assert reply.status == 200 and tier.model.name in await reply.text()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)


async def test_only_the_large_tier_has_a_price() -> None:
    async with default_tiers() as tiers:
        assert [note.price is not None for note in tiers.models.values()] == [False, False, True]


def test_every_kind_has_a_port_and_a_variable() -> None:
    assert set(PORTS) == set(VARIABLES) == set(KINDS)
    assert len(set(PORTS.values())) == len(KINDS)
