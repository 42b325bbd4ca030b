"""With every flag off the gateway changes nothing: what a caller gets is what the upstream itself says to whoever asks
it directly, on each of the four wires. Who turns everything off in an emergency must not have another problem then."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx2
import orjson
import pytest
import pytest_asyncio

from app.config.features import FEATURES
from app.simulator.simulated import Simulated
from tests.flows.asking import ANY
from tests.flows.service import KINDS, MODELS, Service, over

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]
OFF: Final = {f"FEATURE_{name}": "false" for name in FEATURES}
CITY: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Final = {"name": "weather", "description": "The weather in a city", "parameters": CITY}
ASKED: Final[Mapping[str, Json]] = {
    "text": {"messages": [{"role": "user", "content": "Hello!"}]},
    "every width": {"messages": [{"role": "user", "content": "sim:unicode sim:tokens=30"}]},
    "cut": {"messages": [{"role": "user", "content": "sim:tokens=50"}], "max_tokens": 7},
    "turns": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "Two"},
            {"role": "user", "content": "Three"},
        ]
    },
    "tools": {
        "messages": [{"role": "user", "content": 'call weather({"city": "Oslo"})'}],
        "tools": [{"type": "function", "function": TOOL}],
    },
}
OF_THE_MOMENT: Final = re.compile(rb'"(?:id":"[^"]+|created":\d+)')
"""What no two answers of one server share."""


class Said(NamedTuple):
    """What an answer comes to in any dialect."""

    text: str
    calls: list[tuple[str, Any]]
    finish: str
    tokens_in: int
    tokens_out: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    priced = {**ANY, "price": {"input": 1.0, "output": 2.0}}
    config: Json = {
        "models": {MODELS[kind]: priced if kind in ("openai", "anthropic") else ANY for kind in KINDS},
        "budgets": [{"scope": "global", "period": "day", "limit": 0.0000001}],
        "environ": OFF,
    }
    async with over(Path(tmp_path_factory.mktemp("off")), KINDS, **config) as running:
        yield running


async def through(service: Service, kind: str, body: Json) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=service.url, timeout=30) as client:
        reply = await client.post("/v1/chat/completions", json={**body, "model": MODELS[kind]})
    assert reply.status_code == 200, reply.text
    return reply


async def directly(sim: Simulated, path: str, body: Json) -> httpx2.Response:
    headers = {"x-api-key": "any", "anthropic-version": "2023-06-01"}
    async with httpx2.AsyncClient(base_url=sim.base_url, timeout=30) as client:
        reply = await client.post(path, json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply


def comparable(body: Json) -> bytes:
    return OF_THE_MOMENT.sub(b"", orjson.dumps(body, option=orjson.OPT_SORT_KEYS))


def name_at(kind: str) -> str:
    return MODELS[kind].partition("/")[2]


# --- each wire, as its own documentation has it, and not as our codecs write it ---------------------------------------


def of_openai(body: Json) -> Said:
    (choice,) = body["choices"]
    message = choice["message"]
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    calls = [(each["name"], orjson.loads(each["arguments"])) for each in functions]
    usage = body["usage"]
    finish = choice["finish_reason"]
    return Said(message["content"] or "", calls, finish, usage["prompt_tokens"], usage["completion_tokens"])


async def asked_of_openai(sim: Simulated, body: Json) -> Said:
    reply = await directly(sim, "/v1/chat/completions", {**body, "model": name_at(sim.kind)})
    return of_openai(reply.json())


async def asked_of_ollama(sim: Simulated, body: Json) -> Said:
    native = {"model": name_at("ollama"), "messages": body["messages"], "stream": False}
    native |= {"tools": body["tools"]} if "tools" in body else {}
    native |= {"options": {"num_predict": body["max_tokens"]}} if "max_tokens" in body else {}
    reply = (await directly(sim, "/api/chat", native)).json()
    functions = [call["function"] for call in reply["message"].get("tool_calls") or ()]
    calls = [(each["name"], each["arguments"]) for each in functions]
    finish = "tool_calls" if calls else reply["done_reason"]
    return Said(reply["message"]["content"], calls, finish, reply["prompt_eval_count"], reply["eval_count"])


async def asked_of_claude(sim: Simulated, body: Json) -> Said:
    native: Json = {"model": name_at("anthropic"), "max_tokens": body.get("max_tokens", 1_000)}
    native["messages"] = [each for each in body["messages"] if each["role"] != "system"]
    if system := [each["content"] for each in body["messages"] if each["role"] == "system"]:
        (native["system"],) = system
    if "tools" in body:
        functions = [dict(each["function"]) for each in body["tools"]]
        native["tools"] = [{"input_schema": each.pop("parameters"), **each} for each in functions]
    reply = (await directly(sim, "/v1/messages", native)).json()
    finish = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}[reply["stop_reason"]]
    text = "".join(block["text"] for block in reply["content"] if block["type"] == "text")
    calls = [(block["name"], block["input"]) for block in reply["content"] if block["type"] == "tool_use"]
    return Said(text, calls, finish, reply["usage"]["input_tokens"], reply["usage"]["output_tokens"])


DIRECT: Final = {
    "ollama": asked_of_ollama,
    "vllm": asked_of_openai,
    "anthropic": asked_of_claude,
    "openai": asked_of_openai,
}


def of_stream(text: str) -> Said:
    """A stream, put together as any client does."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    chunks = [orjson.loads(line) for line in lines]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    calls: dict[int, list[str]] = {}
    for call in (call for delta in deltas for call in delta.get("tool_calls") or ()):
        name, arguments = calls.setdefault(call["index"], ["", ""])
        function = call["function"]
        calls[call["index"]] = [name or function.get("name", ""), arguments + (function.get("arguments") or "")]
    (finish,) = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    (usage,) = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    return Said(
        "".join(delta.get("content") or "" for delta in deltas),
        [(name, orjson.loads(arguments)) for name, arguments in calls.values()],
        finish,
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )


# --- what is the same -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_is_the_upstreams_own(service: Service, kind: str, asked: str) -> None:
    body = ASKED[asked]
    direct = await DIRECT[kind](service.sims[kind], body)
    assert of_openai((await through(service, kind, body)).json()) == direct
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    assert of_stream((await through(service, kind, streamed)).text) == direct


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("kind", ["vllm", "openai"])
async def test_in_the_same_dialect_every_field_is(service: Service, kind: str, asked: str) -> None:
    """Fields that nobody here knows too: what is asked, but for the model's name, and what is answered."""
    sim, body = service.sims[kind], {**ASKED[asked], "stream": False, "seed": 7, "x_of_tomorrow": {"a": [1, None]}}
    direct = (await directly(sim, "/v1/chat/completions", {**body, "model": name_at(kind)})).json()
    sent = sim.asked[-1].fields
    through_us = (await through(service, kind, body)).json()
    assert sim.asked[-1].fields == sent
    assert through_us.pop("tierway")["model"] == MODELS[kind]
    assert comparable(through_us) == comparable(direct)


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_decided_or_refused(service: Service, kind: str) -> None:
    """No verdict, no limit, no session, no second model; what is spent is counted all the same."""
    headers = {"x-tierway-session": "s", "x-tierway-resumable": "true"}
    async with httpx2.AsyncClient(base_url=service.url, headers=headers) as client:
        for stream in (False, True):
            body = {**ASKED["text"], "model": MODELS[kind], "stream": stream}
            reply = await client.post("/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            told = {"x-tierway-tier", "x-tierway-score", "x-tierway-stream-id", "x-tierway-fallback"}
            assert not told & set(reply.headers)
            assert {"session", "resumable"} <= {
                word for name in reply.headers["x-tierway-ignored"].split(",") for word in name.strip().split("-")
            }
            assert "\nid: " not in reply.text
        assert (await client.get("/v1/sessions/s")).status_code == 404
    line = service.lines()[-1]
    assert set(line["flags"].values()) == {False} and set(line["flags"]) == set(FEATURES)
