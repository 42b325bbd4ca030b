"""Without these vLLM's own habits (where the reason comes, sleeping, metrics) are tested nowhere."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.record import Call
from app.simulator.script import Hang, Script, body_of, head_of
from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from tests.simulator.asking import TOOLS, body, call, get, post


def frames(script: Script) -> list[dict[str, Any]]:
    return [orjson.loads(one[6:]) for one in body_of(script).split(b"\n\n") if one.startswith(b"data: {")]


def asked(sim: Simulated, path: str, fields: dict[str, Any]) -> Script:
    return sim.answer(Call("POST", path, "", {}, orjson.dumps(fields)))


def test_the_finish_reason_comes_with_the_last_text() -> None:
    values = frames(Simulated("vllm").answer(call("vllm", body("vllm", "hi", stream=True))))
    reasons = [choice["finish_reason"] for value in values for choice in value["choices"]]
    assert reasons[-1] == "stop" and set(reasons[:-1]) == {None}
    assert values[-2]["choices"][0]["delta"]["content"] and values[-1]["choices"] == []


def test_each_of_several_choices_finishes_on_its_own_text() -> None:
    values = frames(Simulated("vllm").answer(call("vllm", body("vllm", "hi", stream=True, n=2))))
    ends = [choice for value in values for choice in value["choices"] if choice["finish_reason"]]
    assert [end["index"] for end in ends] == [0, 1] and all(end["delta"]["content"] for end in ends)


@pytest.mark.parametrize("more", [{"tools": TOOLS}, {"max_tokens": 1, "reasoning_effort": "low"}])
def test_where_there_is_no_text_the_reason_comes_alone(more: dict[str, Any]) -> None:
    values = frames(Simulated("vllm").answer(call("vllm", body("vllm", "call now", stream=True, **more))))
    assert values[-2]["choices"][0]["delta"] == {} and values[-2]["choices"][0]["finish_reason"]


@pytest.mark.parametrize("stream", [True, False])
def test_reasoning_has_vllms_name(stream: bool) -> None:
    data = body_of(Simulated("vllm").answer(call("vllm", body("vllm", "hi sim:reason", stream=stream))))
    assert b'"reasoning":' in data and b"reasoning_content" not in data


def test_the_requests_id_is_the_answers() -> None:
    reply = orjson.loads(body_of(Simulated("vllm").answer(call("vllm", body("vllm"), **{"x-request-id": "r7"}))))
    assert reply["id"] == "chatcmpl-r7"


async def test_a_sleeping_server_is_healthy_and_answers_nothing() -> None:
    async with simulate("vllm") as sim:
        assert (await post(sim, {}, "/sleep"))[2] == b'{"status":"sleeping"}'
        assert orjson.loads(body_of(sim.answer(get("/is_sleeping")))) == {"is_sleeping": True}
        head = head_of(sim.answer(get("/health")))
        assert head is not None and head.status == 200
        assert sim.answer(call("vllm", body("vllm"))) == (Hang(),)
        assert b'sleep_state="awake"} 0.0' in body_of(sim.answer(get("/metrics")))
        await post(sim, {}, "/wake_up")
        assert (await post(sim, body("vllm")))[0] == 200


async def test_metrics_tell_queue_and_tokens() -> None:
    sim = Simulated("vllm", Behaviour((SimModel("m"),), parallel=1))
    await sim.house.gate.enter()
    sim.answer(call("vllm", body("vllm", "sim:tokens=9", model="m")))
    text = body_of(sim.answer(get("/metrics"))).decode()
    assert 'vllm:num_requests_running{engine="0",model_name="m"} 1.0' in text
    assert 'vllm:generation_tokens_total{engine="0",model_name="m"} 9.0' in text
    assert orjson.loads(body_of(sim.answer(get("/load")))) == {"server_load": 1}


def test_models_say_their_window_and_their_parent() -> None:
    sim = Simulated("vllm", Behaviour((SimModel("base", context=512), SimModel("lora", parent="base"))))
    base, lora = orjson.loads(body_of(sim.answer(get("/v1/models"))))["data"]
    assert (base["max_model_len"], base["root"], base["parent"]) == (512, "base", None)
    assert (lora["root"], lora["parent"]) == ("base", "base")


def test_tokens_are_counted_exactly_as_answers_count_them() -> None:
    sim = Simulated("vllm")
    fields = body("vllm", "some words to count")
    counted = orjson.loads(body_of(asked(sim, "/tokenize", fields)))
    usage = orjson.loads(body_of(sim.answer(call("vllm", fields))))["usage"]
    assert counted["count"] == usage["prompt_tokens"] == len(counted["tokens"])
    prompt = orjson.loads(body_of(asked(sim, "/tokenize", {"model": "sim-medium", "prompt": "x" * 40})))
    assert (prompt["count"], prompt["max_model_len"]) == (10, 65_536)
    head = head_of(asked(sim, "/tokenize", {"model": "sim-medium", "prompt": [1]}))
    assert head is not None and head.status == 400


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": [{"role": "user", "content": "x" * 4_000}]}, "input_tokens"),
        ({"max_tokens": 600}, "max_tokens"),
    ],
)
def test_what_does_not_fit_is_refused(more: dict[str, Any], param: str) -> None:
    sim = Simulated("vllm", Behaviour((SimModel("m", context=512),)))
    script = sim.answer(call("vllm", {**body("vllm", model="m"), **more}))
    error = orjson.loads(body_of(script))["error"]
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", param, 400)
    assert error["message"].startswith("This model's maximum context length is 512 tokens. However,")


def test_a_missing_model_and_missing_paths() -> None:
    sim = Simulated("vllm")
    error = orjson.loads(body_of(sim.answer(call("vllm", body("vllm", model="x")))))["error"]
    assert error == {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}
    assert body_of(sim.answer(get("/nope"))) == b'{"detail":"Not Found"}'
    assert body_of(sim.answer(get("/tokenize"))) == b'{"detail":"Method Not Allowed"}'


@pytest.mark.parametrize("path", ["/ping", "/version", "/is_sleeping"])
def test_small_paths(path: str) -> None:
    head = head_of(Simulated("vllm").answer(get(path)))
    assert head is not None and head.status == 200
