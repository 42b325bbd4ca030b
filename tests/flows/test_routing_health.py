"""Upstreams that die, throttle, sleep or stumble under load: clients see none of it while anything else can answer."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.simulator.behaviour import DEFAULTS, Behaviour, SimModel
from app.simulator.server import simulate
from tests.flows.asking import ADMIN, ANY, Asking, Load, Reply, clock, within
from tests.flows.service import Service, gateway, upstream

pytestmark = pytest.mark.asyncio(loop_scope="function")

OPEN_SECONDS = 0.5
CLIENTS = 12
NOT_YET = 0.02  # seconds to a first token, so that many requests wait for it at any moment


def slow(*names: str, tier: str = "small") -> Behaviour:
    return Behaviour(tuple(SimModel(name, tier, first_token=NOT_YET) for name in names))


@contextlib.asynccontextmanager
async def house(
    folder: Path,
    kinds: Sequence[str],
    behaviours: Mapping[str, Behaviour] = DEFAULTS,
    asleep: Sequence[str] = (),
    **config: Any,
) -> AsyncIterator[tuple[Service, Asking]]:
    """A gateway with impatient breakers over one server of each kind, in this order of preference."""
    async with contextlib.AsyncExitStack() as stack:
        made = {**DEFAULTS, **behaviours}
        sims = {kind: await stack.enter_async_context(simulate(kind, made[kind])) for kind in kinds}
        for kind in asleep:
            await told(f"{sims[kind].base_url}/sleep")
        breaker = {"open": OPEN_SECONDS, "max_open": 60}
        upstreams = {kind: upstream(sim, breaker=breaker, max_concurrency=64) for kind, sim in sims.items()}
        notes = {f"{kind}/{model.name}": ANY for kind in kinds for model in made[kind].models if not model.embeds}
        environ = {"ANTHROPIC_API_KEY": "k", **ADMIN}
        service = await stack.enter_async_context(
            gateway(folder, upstreams, sims, environ=environ, models=notes, **config)
        )
        yield service, await stack.enter_async_context(Asking(service))


async def told(url: str) -> None:
    async with httpx2.AsyncClient() as http:
        assert (await http.post(url)).status_code == 200


def failed(replies: Sequence[Reply]) -> list[Reply]:
    return [reply for reply in replies if reply.status != 200 or reply.broke or not reply.text]


def attempts(service: Service, name: str) -> Counter[str]:
    """How the tries at an upstream went."""
    tried = [attempt for line in service.lines() for attempt in line["attempts"]]
    return Counter(attempt["outcome"] for attempt in tried if attempt["model"].startswith(f"{name}/"))


@pytest.mark.parametrize("other", ["vllm", "anthropic"])
async def test_killed_under_load(tmp_path: Path, other: str) -> None:
    """Ollama dies while it is asked by many, with all its models: no client notices, nobody waits for it, it is asked
    once per opening of its breaker, and some time after it is back it is used again, though nobody told us."""
    models = tuple(f"m{number}" for number in range(4))  # more than there are tries
    slowed = {"ollama": slow(*models), other: slow("claude-stand-in" if other == "anthropic" else "stand-in")}
    async with house(tmp_path, ("ollama", other), slowed) as (service, asking), Load(asking, CLIENTS, 0.02) as load:
        sim = service.sims["ollama"]
        await load.more(30)
        assert {reply.headers["x-tierway-upstream"] for reply in load.replies} == {"ollama"}
        sim.refuse()
        sim.drop_connections()
        died = clock.monotonic()
        await asyncio.sleep(0.8 * OPEN_SECONDS)
        at_once = attempts(service, "ollama")["refused"]  # those that came before the first of them knew
        assert 1 <= at_once <= CLIENTS
        assert await service.metric("tierway_breaker_state", upstream="ollama", model="ollama/m0") >= 1
        meanwhile = await load.more(30)
        assert {reply.headers["x-tierway-upstream"] for reply in meanwhile} == {other}
        await asyncio.sleep(max(0.0, died + 4 * OPEN_SECONDS - clock.monotonic()))
        openings = math.floor(math.log2((clock.monotonic() - died) / OPEN_SECONDS + 1))
        assert 1 <= attempts(service, "ollama")["refused"] - at_once <= openings
        await sim.accept()

        async def used_again() -> bool:
            return {reply.headers["x-tierway-upstream"] for reply in (await load.more(24))[-12:]} == {"ollama"}

        await within(40 * OPEN_SECONDS, used_again, "it is used again")

        async def closed() -> bool:
            serving = (await load.more(1))[
                -1
            ].model or ""  # which of its models it is, what was learnt meanwhile decides
            return await service.metric("tierway_breaker_state", upstream="ollama", model=serving) == 0

        await within(40, closed, "the breaker of the model that serves closes")
    assert failed(load.replies) == []
    assert len(load.replies) > 200 and not service.lines("a fault of the gateway")


async def test_throttled(tmp_path: Path) -> None:
    """A 429 that names a wait moves the traffic away for that long: nobody else runs into it, and afterwards the
    cheaper model is used again."""
    async with house(tmp_path, ("vllm", "anthropic")) as (service, asking), Load(asking, 6, 0.01) as load:
        await load.more(12)
        sim = service.sims["vllm"]
        sim.fault_next("throttled", retry_after="1")
        await load.more(12)
        at = next(call.at for call in sim.asked if call.fault == "throttled")

        async def used_again() -> bool:
            return any(call.at > at + 0.5 for call in sim.asked)

        await within(20, used_again, "it is used again")
        pause = min(call.at for call in sim.asked if call.at > at + 0.5) - at
        assert pause >= 1
        assert [call.fault for call in sim.asked].count("throttled") == 1
        waited = [call.at - at for call in service.sims["anthropic"].asked]
        assert len(waited) > 10 and max(waited) < pause + 0.5
    assert failed(load.replies) == []


async def test_asleep(tmp_path: Path) -> None:
    """A sleeping vLLM takes requests and never answers them: it gets none while another model can answer, it counts as
    well all the same, and once it has been woken it is used again."""
    async with house(tmp_path, ("vllm", "anthropic"), asleep=["vllm"]) as (service, asking):
        sim = service.sims["vllm"]
        await within(7, lambda: demoted(asking, "asleep or away"), "its sleep is noticed")
        replies = [await asking.chat(stream=stream) for stream in (True, False) * 5]
        assert failed(replies) == [] and {reply.model for reply in replies} == {"anthropic/claude-sim-large"}
        assert not [call for call in sim.asked if call.method == "POST"]
        assert await service.metric("tierway_breaker_state", upstream="vllm") == 0
        await told(f"{sim.base_url}/wake_up")
        await within(7, lambda: demoted(asking, None), "it is noticed that it was woken")
        assert (await asking.chat()).model == "vllm/sim-medium"


async def demoted(asking: Asking, why: str | None) -> bool:
    (model,) = (await asking.upstream("vllm"))["models"]
    return bool(model["demoted"] == why)


PASSING = ("hang_up", "reset", "server_error", "text_error", "html_error", "unavailable", "overloaded", "empty")
"""Failures that chance may explain, of servers and of what stands between."""


async def test_a_tenth_of_all_calls_fails(tmp_path: Path) -> None:
    """A hundred agents hold a dialogue of ten turns each while every tenth call of every upstream fails somehow: not
    one dialogue ends, and nearly all failures are made good before a client hears of them."""
    async with house(tmp_path, ("ollama", "vllm", "anthropic")) as (service, _):
        for seed, sim in enumerate(service.sims.values()):
            sim.fault_some(0.1, *PASSING, seed=seed)
        client, gate = service.openai(max_retries=2), asyncio.Semaphore(20)

        async def dialogue(number: int) -> None:
            messages: list[Any] = []
            for turn in range(10):
                messages.append({"role": "user", "content": f"Agent {number} says {turn}"})
                async with gate:
                    reply = await client.chat.completions.create(model="auto", messages=messages)
                answer = reply.choices[0].message.content
                assert answer is not None and f"You said: Agent {number} says {turn}" in answer
                messages.append({"role": "assistant", "content": answer})

        await asyncio.gather(*(dialogue(number) for number in range(100)))
        stumbled = [line for line in service.lines() if len(line["attempts"]) > 1 or line["status"] != 200]
        lost = [line for line in stumbled if line["status"] != 200]
        assert len(stumbled) > 60, "the faults happened"
        assert len(lost) <= 0.05 * len(stumbled)
