"""Rollouts through whole gateways: what fails is taken back, what is well stays, replicas agree, shadows are unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.flows.asking import Asking, Replica, Reply, replicas, within
from tests.flows.service import MODELS, Service

pytestmark = pytest.mark.asyncio(loop_scope="function")

CONTROL, TREATMENT = MODELS["ollama"], MODELS["vllm"]
CANARY = {"kind": "canary", "share": "20%", "to": {"model": TREATMENT}}
MOST = 1_200  # requests in a minute of 20 a second
AT_ONCE = 8


async def ask_all(found: Sequence[Replica], sessions: Sequence[str]) -> dict[str, Reply]:
    """One request for each session, to one replica after the other."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, session: str) -> Reply:
        async with gate:
            return await found[number % len(found)][1].chat("Hello", session=session)

    replies = await asyncio.gather(*(one(number, session) for number, session in enumerate(sessions)))
    assert all(reply.status == 200 for reply in replies), "a rollout costs no client its answer"
    return dict(zip(sessions, replies, strict=True))


async def state(asking: Asking, name: str) -> dict[str, Any]:
    listed: list[dict[str, Any]] = (await asking.admin("GET", "rollouts"))["data"]
    return next(one for one in listed if one["name"] == name)


def names(first: int, count: int) -> list[str]:
    return [f"session-{number}" for number in range(first, first + count)]


async def test_a_failing_canary_is_rolled_back(tmp_path: Path) -> None:
    """A model that fails every tenth request of its share loses it by itself, on every replica, within a minute of
    traffic at twenty requests a second; nobody's request fails meanwhile, and it says why."""
    async with replicas(tmp_path, 2) as found:
        (service, asking), (other, other_asking) = found
        await asking.admin("PUT", "rollouts/new-model", CANARY)
        await within(10, lambda: is_in(other_asking), "the other replica takes part")
        service.sims["vllm"].fault_some(0.1, "server_error", seed=5)
        asked, standing = 0, await state(asking, "new-model")
        while standing["status"] == "running" and asked < MOST:
            asked += len(await ask_all(found, names(asked, 120)))
            await asyncio.sleep(0.9)  # in a minute there are more ticks than these
            standing = await state(asking, "new-model")
        assert (standing["status"], standing["share"]) == ("rolled_back", "0%")
        assert "failed" in standing["reason"]
        await within(10, lambda: is_out(other_asking), "the other replica hears of it")
        after = await ask_all(found, names(0, 60))  # what the canary failed may ask for more than the control, too
        assert not [reply for reply in after.values() if reply.headers["x-tierway-reason"].startswith("rollout")]
        assert await other.metric("tierway_rollout_share", name="new-model", arm="treatment") == 0
        moved = service.lines("rollout moved") + other.lines("rollout moved")
        assert [line["reason"] for line in moved] == [standing["reason"]], "once, whoever decided it"


async def is_in(asking: Asking) -> bool:
    reasons = [(await asking.chat(session=session)).headers["x-tierway-reason"] for session in names(0, 20)]
    return any(reason.startswith("rollout") for reason in reasons)


async def is_out(asking: Asking) -> bool:
    return not await is_in(asking)


async def test_a_canary_as_good_as_control_stays(tmp_path: Path) -> None:
    """Replicas put the same sessions into it, about its share of them; nothing takes it back; and when its share
    grows, who is in it stays in it."""
    async with replicas(tmp_path, 2) as found:
        (_, asking), (_, other) = found
        await asking.admin("PUT", "rollouts/new-model", CANARY)
        await within(2, lambda: is_in(other), "the other replica takes part")
        sessions = names(0, 300)
        here, there = await ask_all([found[0]], sessions), await ask_all([found[1]], sessions)
        inside = {session for session, reply in here.items() if reply.model == TREATMENT}
        assert inside == {session for session, reply in there.items() if reply.model == TREATMENT}
        assert {here[session].model for session in sessions if session not in inside} == {CONTROL}
        assert 0.13 < len(inside) / len(sessions) < 0.27
        assert all(here[session].headers["x-tierway-reason"] == "rollout new-model" for session in inside)
        await asyncio.sleep(1.2)  # a tick
        standing = await state(asking, "new-model")
        assert standing["status"] == "running" and standing["arms"]["treatment"]["answers"] > 50
        assert standing["arms"]["treatment"]["failed"] == standing["arms"]["control"]["failed"] == 0
        await other.admin("PUT", "rollouts/new-model", {"share": "50%"})
        grown = await ask_all([found[1]], sessions)
        now = {session for session, reply in grown.items() if reply.model == TREATMENT}
        assert inside < now and 0.4 < len(now) / len(sessions) < 0.6


async def test_what_no_rollout_can_be_is_refused(tmp_path: Path) -> None:
    """A rollout to a model that is not there would be one to nowhere, and a misspelt field one without a rollback."""
    async with replicas(tmp_path) as [(_, asking)]:
        for wrong in (
            {"to": {"model": "vllm/sim-medim"}},
            {"to": {"model": "auto"}},
            {"share": "120%"},
            {"kind": "bird"},
            {"rolback": False},
        ):
            refused = await asking.admin("PUT", "rollouts/new-model", {**CANARY, **wrong}, status=422)
            assert refused["error"]["code"] == "invalid_value", wrong
        assert (await asking.admin("GET", "rollouts"))["data"] == []


SHADOW = {"kind": "shadow", "share": "100%", "to": {"model": MODELS["anthropic"]}}


async def test_a_shadow_repeats_and_never_shows(tmp_path: Path) -> None:
    """What a model would have said is asked of it after the answer, and compared: no client sees its words, its price
    or its failures. What must stay local has no shadow elsewhere."""
    async with replicas(tmp_path, environ={"FEATURE_SHADOW": "true"}) as [(service, asking)]:
        sim = service.sims["anthropic"]
        await asking.admin("PUT", "rollouts/cloud", SHADOW)
        private = [await asking.chat("Mine", "auto:privacy"), await asking.chat("Mine", strategy="privacy")]
        assert [reply.model for reply in private] == [CONTROL, CONTROL]
        first = await asking.chat("What is the capital of France?", stream=True)
        assert (first.model, first.code) == (CONTROL, None) and "[simulated small]" in first.text
        await within(3, lambda: is_compared(service, asking, first.id), "its shadow is compared with it")
        (call,) = sim.asked
        assert b"What is the capital of France?" in call.raw and b"Mine" not in call.raw
        sim.fault_next("server_error", times=10)
        assert (await asking.chat("And of Spain?")).status == 200
        await within(3, lambda: asked_twice(service), "its shadow fails")
        lines = {line["request_id"]: line for line in service.lines()}
        shadows = [line for line in lines.values() if line["parent_request_id"]]
        assert {line["model"] for line in shadows} == {MODELS["anthropic"]} and len(shadows) == 2
        assert lines[first.id]["model"] == CONTROL and not lines[first.id]["cost_usd"]


async def is_compared(service: Service, asking: Asking, request_id: str) -> bool:
    """Whether the decision about its shadow says how close that came."""
    shadow = next((line for line in service.lines("shadow") if line["of"] == request_id), None)
    if shadow is None:
        return False
    decision = await asking.admin("GET", f"decisions/{shadow['request_id']}")
    assert decision["parent_id"] == request_id and decision["arm"] == "cloud:treatment"
    return any(outcome["source"] == "shadow" for outcome in decision["outcomes"])


async def asked_twice(service: Service) -> bool:
    return sum(line["parent_request_id"] is not None for line in service.lines()) == 2
