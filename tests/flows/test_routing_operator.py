"""What an operator does reaches every gateway; what was decided can be looked up; what callers say is heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.asking import Asking, replicas, within
from tests.flows.service import MODELS

pytestmark = pytest.mark.asyncio(loop_scope="function")

FIRST, SECOND, PAID = (MODELS[kind] for kind in ("ollama", "vllm", "anthropic"))


async def goes_to(asking: Asking, model: str) -> bool:
    return (await asking.chat()).model == model


async def test_drain_and_resume_reach_every_gateway(tmp_path: Path) -> None:
    """Who takes a server down for repair drains it first: within two seconds no gateway sends it anything new, and
    nobody's request fails. A gateway that starts meanwhile knows as well. A named model is still served."""
    async with replicas(tmp_path, 2) as [(service, here), (_, there)]:
        assert [await goes_to(asking, FIRST) for asking in (here, there)] == [True, True]
        assert (await here.admin("POST", "upstreams/ollama/drain"))["drained"] is True
        assert await goes_to(here, SECOND), "at once where it was said"
        await within(2, lambda: goes_to(there, SECOND), "the other gateway drains it too")
        assert (await there.upstream("ollama"))["drained"] is True
        assert (await there.chat(model=FIRST)).model == FIRST
        async with replicas(tmp_path, sims=service.sims) as [(_, late)]:
            assert await goes_to(late, SECOND)
        await there.admin("POST", "upstreams/ollama/resume")
        await within(2, lambda: goes_to(here, FIRST), "the first gateway uses it again")
        entries = (await here.admin("GET", "audit?limit=2"))["data"]
        assert [(one["action"], one["subject"]) for one in entries] == [
            ("upstream.resume", "ollama"),
            ("upstream.drain", "ollama"),
        ]
        refused = await here.admin("POST", "upstreams/olama/drain", status=404)
        assert refused["error"]["code"] == "not_found"


async def test_a_reset_reaches_every_gateway(tmp_path: Path) -> None:
    """Who has repaired a server need not wait for the breakers of all gateways to find out by themselves."""
    async with replicas(tmp_path, 2, settings={"breaker": {"open": 300}}) as [(service, here), (_, there)]:
        sim = service.sims["ollama"]
        sim.refuse()
        sim.drop_connections()
        for asking in (here, there):
            assert await goes_to(asking, SECOND)
            (state,) = [one for one in (await asking.upstream("ollama"))["models"] if one["id"] == FIRST]
            assert state["breaker"] == "open" and 290 < state["open_seconds"] <= 300
        await sim.accept()
        assert await goes_to(there, SECOND), "nobody asks it before its time"
        await here.admin("POST", "upstreams/ollama/reset")
        assert await goes_to(here, FIRST)
        await within(2, lambda: goes_to(there, FIRST), "the other gateway forgets it as well")


async def test_a_decision_can_be_looked_up_on_any_gateway(tmp_path: Path) -> None:
    """Why this model, what it was expected to cost and what it did, what else could have served and why it did not; and
    none of what was said."""
    async with replicas(tmp_path, 2) as [(service, here), (_, there)]:
        service.sims["ollama"].fault_next("throttled", retry_after="60")
        reply = await here.chat("My secret recipe", session="kitchen", agent="cook", max_tokens=50)
        decision = await there.decision(reply.id)
        assert (decision["model"], decision["fallback_from"], decision["status"]) == (SECOND, FIRST, 200)
        assert [each["outcome"] for each in decision["attempts"]] == ["throttled", "ok"]
        assert [each["model"] for each in decision["candidates"]] == [FIRST, SECOND, PAID]
        assert [each["chosen"] for each in decision["candidates"]] == [False, True, False]
        assert (decision["session"], decision["agent"], decision["cost_usd"]) == ("kitchen", "cook", 0)
        assert f"stands in for {FIRST} (throttled)" in decision["summary"]
        assert "recipe" not in str(decision)
        assert decision["flags"]["MULTI_MODEL_ROUTER"] and not decision["flags"]["SHADOW"]


async def test_feedback_is_heard(tmp_path: Path) -> None:
    """A rating given at any gateway becomes part of the decision and of the metrics; a rating of nothing, or of what
    nobody asked, is refused."""
    async with replicas(tmp_path, 2) as [(_, here), (other, there)]:
        reply = await here.chat("What is 2 + 2?")
        before = await here.decision(reply.id)
        assert await there.feedback(reply.id, 0.0) == 202
        after = await here.decision(reply.id)
        assert (before["quality"] is None or before["quality"] > after["quality"]) and after["quality"] < 0.5
        assert [each["value"] for each in after["outcomes"] if each["source"] == "feedback"] == [0.0]
        assert await there.feedback(reply.id, 1.0) == 202
        again = await here.decision(reply.id)
        assert again["quality"] > after["quality"]
        assert await other.metric("tierway_feedback_total", rating="bad") == 1
        assert await other.metric("tierway_feedback_total", rating="good") == 1
        assert [await there.feedback(*wrong) for wrong in ((reply.id, 2.0), ("req_of_nobody", 1.0))] == [422, 404]
        assert await other.metric("tierway_feedback_total") == 2


async def test_models_are_compared_with_a_baseline_on_every_gateway(tmp_path: Path) -> None:
    """How good are the local models, next to what one model did when somebody said so?"""
    async with replicas(tmp_path, 2) as [(_, here), (_, there)]:
        assert (await here.admin("PUT", "baseline", {"model": FIRST}, status=422))["error"]["param"] == "model"
        for number in range(12):
            reply = await here.chat(f"What is 2 + {number}?")
            assert reply.model == FIRST
            await here.decision(reply.id)
            assert await here.feedback(reply.id, 1.0) == 202
        put = await here.admin("PUT", "baseline", {"model": FIRST})
        assert put["model"] == FIRST and put["quality"]["all"] > 0.8

        async def knows() -> bool:
            return bool((await there.admin("GET", "baseline"))["quality"] == put["quality"])

        await within(8, knows, "the other gateway compares with it too")
        ratios = {each["model"]: each["ratio"] for each in put["models"]}
        assert ratios[FIRST] == pytest.approx(1.0, abs=0.05) and ratios[PAID] is None
        assert (await there.admin("GET", "audit?limit=1"))["data"][0]["action"] == "baseline.put"
