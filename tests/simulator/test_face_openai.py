"""Without these the fake of a plain OpenAI-compatible server is none that official clients accept."""

from __future__ import annotations

from typing import Any

import openai
import orjson
import pytest

from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.script import body_of, head_of
from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from tests.simulator.asking import TOOLS, body, call, get, post

SMALL = Behaviour((SimModel("m", context=200), SimModel("e", dimensions=8)), api_key="k", parallel=1, queue=0)


def refused(sim: Simulated, fields: dict[str, Any] | bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    script = sim.answer(call("openai", fields, **headers))
    head = head_of(script)
    assert head is not None
    return head.status, orjson.loads(body_of(script))["error"]


async def test_the_official_client_is_answered() -> None:
    async with simulate("openai") as sim, openai.AsyncOpenAI(api_key="k", base_url=f"{sim.base_url}/v1") as client:
        assert [model.id async for model in client.models.list()] == ["sim-plain"]
        assert (await client.models.retrieve("sim-plain")).id == "sim-plain"
        reply = await client.chat.completions.create(model="sim-plain", messages=[{"role": "user", "content": "hi"}])
        assert reply.choices[0].message.content == "[simulated plain] You said: hi"
        assert reply.system_fingerprint == "simulated"
        assert reply.usage is not None and reply.usage.total_tokens > reply.usage.prompt_tokens > 0


async def test_the_official_clients_stream_helper_is_content() -> None:
    async with (
        simulate("openai") as sim,
        openai.AsyncOpenAI(api_key="k", base_url=f"{sim.base_url}/v1") as client,
        client.chat.completions.stream(
            model="sim-plain",
            messages=[{"role": "user", "content": "call weather and now"}],
            tools=TOOLS,  # type: ignore[arg-type]  # plain data
            stream_options={"include_usage": True},
        ) as stream,
    ):
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [one.function.name for one in calls] == ["weather", "now"]
    assert final.choices[0].finish_reason == "tool_calls" and final.usage is not None


async def test_embeddings_are_given() -> None:
    async with (
        simulate("openai", Behaviour((SimModel("e", dimensions=8),))) as sim,
        openai.AsyncOpenAI(api_key="k", base_url=f"{sim.base_url}/v1") as client,
    ):
        both = await client.embeddings.create(model="e", input=["a b", "c"], dimensions=4)
        assert [len(one.embedding) for one in both.data] == [4, 4]
        tokens = await client.embeddings.create(model="e", input=[[1, 2, 3]])
        assert len(tokens.data[0].embedding) == 8


def test_refusals() -> None:
    sim, key = Simulated("openai", SMALL), {"authorization": "Bearer k"}
    fields = body("openai", model="m")
    assert refused(sim, fields)[0] == 401
    assert refused(sim, {**fields, "model": "x"}, **key) == (
        404,
        {
            "message": "The model `x` does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        },
    )
    assert refused(sim, b"{", **key)[1]["code"] == "invalid_json"
    assert refused(sim, {**fields, "model": "e"}, **key)[0] == 400
    long = refused(sim, {**fields, "messages": [{"role": "user", "content": "x" * 1_000}]}, **key)
    assert (long[0], long[1]["code"]) == (400, "context_length_exceeded")


def test_only_models_for_it_embed() -> None:
    sim = Simulated("openai")
    asked = call("openai", {"model": "sim-plain", "input": "x"})
    asked.path = "/v1/embeddings"
    head = head_of(sim.answer(asked))
    assert head is not None and head.status == 400


async def test_a_full_queue_refuses() -> None:
    sim = Simulated("openai", SMALL)
    await sim.house.gate.enter()
    assert refused(sim, body("openai", model="m"), authorization="Bearer k")[0] == 503


def test_unknown_paths() -> None:
    script = Simulated("openai").answer(get("/v2"))
    assert orjson.loads(body_of(script))["error"]["code"] == "unknown_url"


@pytest.mark.parametrize(("choice", "finish"), [("required", "tool_calls"), ({"function": {"name": "now"}}, "stop")])
async def test_a_named_tool_ends_with_stop(choice: Any, finish: str) -> None:
    wanted = choice if isinstance(choice, str) else {"type": "function", **choice}
    async with simulate("openai") as sim:
        _, _, data = await post(sim, body("openai", tools=TOOLS, tool_choice=wanted))
    assert orjson.loads(data)["choices"][0]["finish_reason"] == finish
