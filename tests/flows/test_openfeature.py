"""A flag service switches features of a running gateway for whom its operator says, and its failing changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagResolutionDetails
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from app.gateway import flag_service
from tests.flows.asking import Asking, replicas, within
from tests.flows.service import MODELS

pytestmark = pytest.mark.asyncio(loop_scope="function")

FIRST, SECOND = MODELS["ollama"], MODELS["vllm"]
SOON = 10.0
"""Two seconds are promised; a machine that is busy with other tests gets more."""
ROUTER = "flags/MULTI_MODEL_ROUTER"
OFF_FOR: set[str] = set()
"""The tenants, agent types, and `all`, for which the service says that the router is off; `down`: it says nothing."""


def said(flag: InMemoryFlag[bool], context: EvaluationContext) -> FlagResolutionDetails[bool]:
    if "down" in OFF_FOR:
        raise ConnectionError("nobody is there")
    about = {"all", context.attributes.get("tenant"), context.attributes.get("agent")}
    return FlagResolutionDetails(value=not about & OFF_FOR)


def provider() -> InMemoryProvider:
    return InMemoryProvider({"tierway_multi_model_router": InMemoryFlag("on", {"on": True}, context_evaluator=said)})


@pytest.fixture(autouse=True)
def _all_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("FIRST_SECONDS", "START_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(flag_service, name, SOON)  # a machine that is busy is no service that is slow
    OFF_FOR.clear()
    yield
    OFF_FOR.clear()


def asked(**environ: str) -> dict[str, Any]:
    return {
        "kinds": ("ollama", "vllm"),
        "routing": {"default_model": SECOND},
        "environ": {"TIERWAY_FLAG_PROVIDER": f"{__name__}:provider", **environ},
    }


async def soon(asking: Asking, model: str, **who: Any) -> None:
    async def is_so() -> bool:
        return (await asking.chat(**who)).model == model

    await within(SOON, is_so, f"answered by {model}")


async def test_a_flag_service_switches_features_and_operators_here_have_the_last_word(tmp_path: Path) -> None:
    OFF_FOR.add("problem-agent")
    async with replicas(tmp_path, 2, **asked()) as [(service, here), (last, there)]:
        assert (await here.chat(agent="problem-agent")).model == SECOND, "from the very first request"
        assert (await here.chat()).model == FIRST
        OFF_FOR.add("all")
        for asking in (here, there):
            await soon(asking, SECOND)
        (state,) = [each for each in (await here.admin("GET", "flags"))["data"] if "ROUTER" in each["name"]]
        assert (state["value"], state["start"], state["service"]) == (False, True, False)
        assert await service.metric("tierway_flag", name="MULTI_MODEL_ROUTER") == 0
        OFF_FOR.add("down")

        async def is_noticed() -> bool:
            return await service.metric("tierway_flag_service_polls_total", outcome="failed") >= 1

        await within(SOON, is_noticed, "the service is seen to be away")
        assert (await here.chat()).model == SECOND, "what it said last counts"
        assert last.lines("the flag service does not say what flags are; what it said last counts")
        await here.admin("PUT", ROUTER, {"value": True})
        for asking in (here, there):
            await soon(asking, FIRST)
            await soon(asking, FIRST, agent="problem-agent")
        assert {
            line["flags"]["MULTI_MODEL_ROUTER"] for line in last.lines()
        }  # of both: they write to one place == {True, False}


async def test_targeting_by_tenant_reaches_that_tenant_alone(tmp_path: Path) -> None:
    OFF_FOR.add("acme")
    async with replicas(tmp_path, **asked()) as [(_, asking)]:
        keys = [
            (await asking.admin("POST", "keys", {"name": tenant, "tenant": tenant}, 201))["key"]
            for tenant in ("acme", "other")
        ]
        assert [(await asking.chat(key=key)).model for key in keys] == [SECOND, FIRST]
        OFF_FOR.clear()
        await soon(asking, FIRST, key=keys[0])


async def test_what_the_environment_names_is_not_asked(tmp_path: Path) -> None:
    """`kubectl set env` rolls back whatever a flag service says."""
    async with replicas(tmp_path, **asked(FEATURE_MULTI_MODEL_ROUTER="false")) as [(_, asking)]:
        assert (await asking.chat()).model == SECOND
        (state,) = [each for each in (await asking.admin("GET", "flags"))["data"] if "ROUTER" in each["name"]]
        assert state["value"] is False and state["service"] is None
