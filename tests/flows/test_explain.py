"""Asking why: before a request, which must change nothing, and afterwards, from what the gateway remembered."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx2

from tests.flows.service import MODELS, over

PRICES = {MODELS["anthropic"]: {"price": {"input": 4, "output": 20}}}
BODY: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "What is the capital of Portugal?"}]}
OURS = ("TIERWAY_", "FEATURE_", "OLLAMA_", "VLLM_", "ANTHROPIC_", "OPENAI_", "REDIS_", "PROMETHEUS_")


async def tierway(*arguments: str, **environ: str) -> tuple[int | None, str]:
    """How the command ends and what it says, as a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from app.cli import main; main()", *arguments),
        env=kept | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, (out or err).decode()


async def test_asking_beforehand_says_what_happens_then_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with over(tmp_path, ("ollama", "anthropic"), models=PRICES) as service:
        async with httpx2.AsyncClient(base_url=service.url) as client:
            said = (await client.post("/v1/route", json=BODY)).json()
            assert [each["model"] for each in said["candidates"]] == [MODELS["ollama"], MODELS["anthropic"]]
            assert said["candidates"][1]["cost_usd"] > 0 == said["candidates"][0]["cost_usd"]
            assert said["model"] in said["explanation"]
            assert not any(
                seen.path in ("/api/chat", "/v1/messages") for sim in service.sims.values() for seen in sim.requests
            )
            assert service.lines() == [] and await service.metric("tierway_requests_total") == 0
            assert await service.metric("tierway_plan_seconds_count") == 0
            reply = await client.post("/v1/chat/completions", json=BODY)
            assert reply.headers["x-tierway-model"] == said["model"]
            refused = await client.post("/v1/route", json={**BODY, "model": "nobody"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        status, told = await tierway("route", BODY["messages"][0]["content"], "--url", service.url)
        assert status == 0 and told.startswith(f"{said['model']}\n") and MODELS["anthropic"] in told


async def test_what_was_is_replayed_from_the_same_store(tmp_path: Path) -> None:
    async with over(tmp_path, ("ollama", "anthropic"), models=PRICES) as service:
        async with httpx2.AsyncClient(base_url=service.url) as client:
            for model in ("auto", MODELS["anthropic"]):
                reply = await client.post("/v1/chat/completions", json={**BODY, "model": model})
                assert reply.status_code == 200
        cost = reply.json()["tierway"]["cost_usd"]
        said = await _replayed(tmp_path, requests=2)
    by_model = {each["model"]: each for each in said["models"]}
    assert (by_model[MODELS["ollama"]]["was"], by_model[MODELS["anthropic"]]["was"]) == (1, 1)
    assert said["was"]["cost_usd"] == cost > 0 and said["kept"]["asked for by name"] == 1


async def _replayed(folder: Path, requests: int) -> Any:
    """What the command says once the gateway has written down so many."""
    async with asyncio.timeout(30):
        while True:
            environ = {"TIERWAY_CONFIG": str(folder / "tierway.yaml"), "ANTHROPIC_API_KEY": "simulated"}
            status, said = await tierway("replay", "--json", TIERWAY_DATA_DIR=str(folder / "data"), **environ)
            if status == 0 and (found := json.loads(said))["requests"] >= requests:
                return found
