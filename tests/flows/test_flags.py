"""Features and settings are switched while gateways work: on all of them within seconds, and for a request whole."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests.flows.asking import Asking, Load, Replica, replicas, within
from tests.flows.service import MODELS

pytestmark = pytest.mark.asyncio(loop_scope="function")

FIRST, SECOND, PAID = (MODELS[kind] for kind in ("ollama", "vllm", "anthropic"))
SOON = 10.0
"""Two seconds are promised; a machine that is busy with other tests gets more."""
ROUTER = "flags/MULTI_MODEL_ROUTER"


async def served(asking: Asking, **more: Any) -> str | None:
    return (await asking.chat(**more)).model


async def everywhere(found: list[Replica], model: str, **more: Any) -> None:
    for _, asking in found:

        async def is_so(asking: Asking = asking) -> bool:
            return await served(asking, **more) == model

        await within(SOON, is_so, f"every gateway answers by {model}")


async def test_a_flag_flipped_through_one_gateway_counts_on_all_and_no_request_mixes(tmp_path: Path) -> None:
    """The way back in an emergency: no restart, no failed request, and nobody served half one way, half the other."""
    routing = {"default_model": SECOND}
    async with (
        replicas(tmp_path, 4, ("ollama", "vllm"), routing=routing) as found,
        contextlib.AsyncExitStack() as stack,
    ):
        loads = [await stack.enter_async_context(Load(asking, 2, pause=0.01)) for _, asking in found]
        await everywhere(found, FIRST)
        for number, (value, model) in enumerate([(False, SECOND), (True, FIRST), (False, SECOND)]):
            state = await found[number][1].admin("PUT", ROUTER, {"value": value})
            assert state["value"] is value
            await everywhere(found, model)
        await asyncio.gather(*(load.more(4) for load in loads))
        await stack.aclose()
        replies = [reply for load in loads for reply in load.replies]
        assert {reply.status for reply in replies} == {200} and not any(reply.broke for reply in replies)
        lines = {line["request_id"]: line for service, _ in found for line in service.lines()}
        for reply in replies:
            routed = lines[reply.id]["flags"]["MULTI_MODEL_ROUTER"]
            assert reply.model == (FIRST if routed else SECOND), "what it says is what it did"
            assert (reply.headers.get("x-tierway-tier") is not None) is routed, "nothing is classified for a plain pass"
        assert {line["flags"]["MULTI_MODEL_ROUTER"] for line in lines.values()} == {True, False}
        audit = (await found[0][1].admin("GET", "audit"))["data"]
        assert [each["subject"] for each in audit if each["action"] == "flag.put"] == ["MULTI_MODEL_ROUTER"] * 3


async def test_a_share_of_sessions_is_that_share_and_only_grows(tmp_path: Path) -> None:
    """Who is in stays in while a feature is rolled out, whichever gateway a session comes to."""
    async with replicas(tmp_path, 2, ("ollama", "vllm"), routing={"default_model": SECOND}) as found:
        (_, here), (_, there) = found
        sessions = [f"session-{number}" for number in range(150)]

        async def passed_through(asking: Asking) -> set[str]:
            served_by = [await served(asking, session=session) for session in sessions]
            return {session for session, model in zip(sessions, served_by, strict=True) if model == SECOND}

        async def put(value: str, share: float) -> None:
            await here.admin("PUT", ROUTER, {"value": value})

            async def is_known() -> bool:
                states = (await there.admin("GET", "flags"))["data"]
                return any(each["name"] == "MULTI_MODEL_ROUTER" and each["value"] == value for each in states)

            await within(SOON, is_known, f"the other gateway knows of {value}")

        await put("90%", 0.1)
        tenth = await passed_through(here)
        await put("80%", 0.2)
        fifth = await passed_through(there)
        assert 4 <= len(tenth) <= 30 and 14 <= len(fifth) <= 48 and tenth < fifth


async def test_a_flag_for_some_callers_alone(tmp_path: Path) -> None:
    async with replicas(tmp_path, 2, ("ollama", "vllm"), routing={"default_model": SECOND}) as found:
        (_, here), _ = found
        await here.admin("PUT", ROUTER, {"value": False, "agent": "problem-agent"})
        await everywhere(found, SECOND, agent="problem-agent")
        await everywhere(found, FIRST, agent="other")
        await here.admin("DELETE", f"{ROUTER}?agent=problem-agent")
        await everywhere(found, FIRST, agent="problem-agent")


async def test_the_environment_has_the_last_word(tmp_path: Path) -> None:
    """`kubectl set env` rolls back although an operator put something else before."""
    config: dict[str, Any] = {"kinds": ("ollama", "vllm"), "routing": {"default_model": SECOND}}
    async with replicas(tmp_path, **config) as [(service, old)]:
        await old.admin("PUT", ROUTER, {"value": "100%"})
        config["environ"] = {"FEATURE_MULTI_MODEL_ROUTER": "false"}
        async with replicas(tmp_path, sims=service.sims, **config) as [(_, new)]:
            assert await served(new) == SECOND and await served(old) == FIRST
        config["environ"] |= {"FEATURE_LOCK": "true"}
        async with replicas(tmp_path, sims=service.sims, **config) as [(_, locked)]:
            refused = await locked.admin("PUT", ROUTER, {"value": True}, status=422)
            assert "FEATURE_LOCK" in refused["error"]["message"]
            assert await served(locked) == SECOND


async def test_settings_change_on_every_gateway_and_come_back(tmp_path: Path) -> None:
    """Another default model, a sick server left alone sooner: each one command, and one command back."""
    environ = {"FEATURE_MULTI_MODEL_ROUTER": "false"}
    async with replicas(tmp_path, 2, environ=environ, routing={"default_model": FIRST}) as found:
        (service, here), (last, there) = found
        first = await here.chat()
        assert first.model == FIRST
        await here.admin("PUT", "settings/default_model", {"value": PAID})
        await everywhere(found, PAID)
        await there.admin("PUT", "settings", {"default_model": SECOND, "breaker": {"failures": 1, "open": 300}})
        await everywhere(found, SECOND)
        service.sims["vllm"].fault_next("server_error")
        await here.chat()
        (state,) = (await here.upstream("vllm"))["models"]
        assert state["breaker"] == "open", "after one failure"
        kept = (await here.admin("GET", "versions"))["data"]
        assert [each["number"] for each in kept] == [3, 2, 1], "the first is the file"
        assert (await here.admin("POST", "versions/2/restore"))["settings"] == {"default_model": PAID}
        await everywhere(found, PAID)
        await there.admin("POST", "versions/0/restore")
        await everywhere(found, FIRST)
        lines = last.lines()  # of both: they write to one place
        versions = [line["config_version"] for line in lines]
        assert len(set(versions)) == 3
        assert versions[-1] == next(line["config_version"] for line in lines if line["request_id"] == first.id)
