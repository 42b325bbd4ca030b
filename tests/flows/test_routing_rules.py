"""Rules that hold whatever is cheapest: limits on cost, privacy, the operator's defaults, the cloud for emergencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from tests.flows.asking import ANY, Asking, replicas, within
from tests.flows.service import MODELS

pytestmark = pytest.mark.asyncio(loop_scope="function")

SMALL, PAID, PLAIN = MODELS["ollama"], MODELS["anthropic"], MODELS["openai"]
DEAR = {**ANY, "price": {"input": 20, "output": 100}}
CHEAP = {**ANY, "price": {"input": 0.1, "output": 0.5}}


# --- x-tierway-max-cost ---------------------------------------------------------------------------------------------


async def test_a_limit_on_cost_moves_a_request_to_a_cheaper_model(tmp_path: Path) -> None:
    """Who says what a request may cost never pays more: the dear model is passed over, the reason is told, and what
    costs nothing is always allowed."""
    models = {PAID: DEAR, PLAIN: CHEAP}
    async with replicas(tmp_path, kinds=("anthropic", "openai"), models=models) as [(service, asking)]:
        reply = await asking.chat("Hello", max_cost="0.001", max_tokens=100)
        assert (reply.model, service.sims["anthropic"].asked) == (PLAIN, [])
        assert 0 < float(reply.headers["x-tierway-cost-usd"]) <= 0.001
        excluded = (await asking.decision(reply.id))["excluded"]
        assert {"model": PAID, "reason": "it costs more than this request may"} in excluded


async def test_a_limit_that_nobody_can_keep_is_refused(tmp_path: Path) -> None:
    """The official client shows it as a quota, and does not try again; no upstream is asked."""
    async with replicas(tmp_path, kinds=("anthropic",), models={PAID: DEAR}) as [(service, asking)]:
        client = service.openai(max_retries=2)
        for model in ("auto", PAID):
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": "Hello"}],
                    extra_headers={"x-tierway-max-cost": "0.0001"},
                )
            assert (caught.value.code, caught.value.type) == ("budget_exceeded", "insufficient_quota")
            assert caught.value.response.headers["x-should-retry"] == "false"

        async def both_told() -> bool:  # a line is written once its answer is on the way
            return len(service.lines()) == 2

        await within(10, both_told, "one line for each, as nothing is asked again")
        assert service.sims["anthropic"].asked == []
        wrong = await asking.chat("Hello", max_cost="cheap")
        assert (wrong.status, wrong.code) == (400, "invalid_value")


# --- privacy --------------------------------------------------------------------------------------------------------


async def test_what_is_private_never_leaves(tmp_path: Path) -> None:
    """By the model's name, by a header, or by the key's own policy: not even when no local model answers any more."""
    async with replicas(tmp_path, kinds=("ollama", "anthropic")) as [(service, asking)]:
        made = await asking.admin("POST", "keys", {"name": "clinic", "privacy": "local"}, status=201)
        free = await asking.admin("POST", "keys", {"name": "anybody"}, status=201)
        private: list[dict[str, Any]] = [
            {"model": "auto:privacy", "key": free["key"]},
            {"strategy": "privacy", "key": free["key"]},
            {"model": "auto", "key": made["key"]},
            {"model": "auto:quality", "key": made["key"]},
        ]
        for more in private:
            for stream in (False, True):
                assert (await asking.chat("My illness", stream=stream, **more)).model == SMALL
        service.sims["ollama"].refuse()
        service.sims["ollama"].drop_connections()
        for more in private:
            reply = await asking.chat("My illness", **more)
            assert (reply.status, reply.code) == (502, "upstream_failed")
        named = await asking.chat("My illness", PAID, key=made["key"])
        assert (named.status, named.code) == (403, "model_not_allowed")
        assert service.sims["anthropic"].asked == []
        assert (await asking.chat("The weather", key=free["key"])).model == PAID


# --- routing.defaults -----------------------------------------------------------------------------------------------

DEFAULTS = {SMALL: {"temperature": 0.3, "system": "Answer briefly."}, "claude-sim-large": {"max_tokens": 77}}


async def test_the_operators_defaults_fill_in_what_nobody_said(tmp_path: Path) -> None:
    """They reach the model, the reply says which, and what the caller said stays as it is."""
    routing = {"defaults": DEFAULTS}
    async with replicas(tmp_path, kinds=("ollama", "anthropic"), routing=routing) as [(service, asking)]:
        for stream in (False, True):
            reply = await asking.chat("Hello", stream=stream)
            assert reply.headers["x-tierway-defaults"] == "temperature, system"
            sent = service.sims["ollama"].asked[-1].fields
            assert (sent["options"]["temperature"], sent["messages"][0]["content"]) == (0.3, "Answer briefly.")
        own = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Hello"}]
        reply = await asking.chat(own, temperature=1.5)
        assert "x-tierway-defaults" not in reply.headers
        sent = service.sims["ollama"].asked[-1].fields
        assert (sent["options"]["temperature"], [one["content"] for one in sent["messages"]]) == (
            1.5,
            ["Rhyme.", "Hello"],
        )
        service.sims["ollama"].fault_next("throttled", retry_after="60")
        reply = await asking.chat("Hello")
        assert (reply.model, reply.headers["x-tierway-defaults"]) == (PAID, "max_tokens"), "each model has its own"
        sent = service.sims["anthropic"].asked[-1].fields
        assert (sent["max_tokens"], "temperature" in sent, "system" in sent) == (77, False, False)


# --- cloud ----------------------------------------------------------------------------------------------------------


async def test_the_cloud_for_emergencies(tmp_path: Path) -> None:
    """Paid only while the local model is dead, from the very request that finds it out: each use is an event and is
    counted with its trigger; and the emergency ends by itself once the local model is back."""
    house = replicas(
        tmp_path, kinds=("ollama", "anthropic"), settings={"breaker": {"open": 0.3}}, routing={"cloud": "emergency"}
    )
    async with house as [(service, asking)]:
        local, cloud = service.sims["ollama"], service.sims["anthropic"]
        local.fault_next("server_error", times=1)
        well = [await asking.chat(f"Hello {number}") for number in range(10)]
        assert {reply.model for reply in well} == {SMALL} and cloud.asked == []
        excluded = (await asking.decision(well[-1].id))["excluded"]
        assert {"model": PAID, "reason": "paid upstreams wait for an emergency"} in excluded

        local.refuse()
        local.drop_connections()
        away = [await asking.chat(stream=stream) for stream in (True, False) * 10]
        assert {(reply.status, reply.model) for reply in away} == {(200, PAID)}
        uses = service.lines("emergency cloud")
        assert {use["trigger"] for use in uses} <= {"local upstream gone", "3 local failures in a row"}
        assert [use["request_id"] for use in uses] == [reply.id for reply in away]
        assert await service.metric("tierway_emergency_cloud_total") == len(away)
        assert (await asking.decision(away[0].id))["trigger"] == uses[0]["trigger"]

        await local.accept()
        await within(5, lambda: is_local(asking, 4), "the local model is used again")
        paid = len(cloud.asked)
        assert {(await asking.chat()).model for _ in range(10)} == {SMALL} and len(cloud.asked) == paid


async def is_local(asking: Asking, times: int) -> bool:
    return {(await asking.chat()).model for _ in range(times)} == {SMALL}


async def test_never_means_never(tmp_path: Path) -> None:
    """`cloud: never` holds for `auto` whatever is wrong here; a paid model asked for by name is the caller's word."""
    house = replicas(tmp_path, kinds=("ollama", "anthropic"), routing={"cloud": "never"})
    async with house as [(service, asking)]:
        service.sims["ollama"].refuse()
        service.sims["ollama"].drop_connections()
        for _ in range(5):
            assert (await asking.chat()).status == 502
        assert service.sims["anthropic"].asked == []
        assert (await asking.chat(model=PAID)).model == PAID
