"""Without these the fake Claude accepts what the real one refuses, or official clients do not accept the fake."""

from __future__ import annotations

from typing import Any

import anthropic
import orjson
import pytest

from app.core.clock import ManualClock
from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.record import Call
from app.simulator.script import Script, body_of, head_of
from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from tests.simulator.asking import HEADERS, body, call, get, tools

MARK = {"cache_control": {"type": "ephemeral"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
MODEL = "claude-sim-large"


def read(script: Script) -> tuple[int, dict[str, Any]]:
    head = head_of(script)
    assert head is not None
    return head.status, orjson.loads(body_of(script))


def ask(sim: Simulated, text: str = "hi", **more: Any) -> tuple[int, dict[str, Any]]:
    return read(sim.answer(call("anthropic", body("anthropic", text, **more))))


async def test_the_official_client_is_answered() -> None:
    async with simulate("anthropic") as sim, anthropic.AsyncAnthropic(api_key="k", base_url=sim.base_url) as client:
        assert [model.id async for model in client.models.list()] == [MODEL]
        reply = await client.messages.create(
            model=MODEL, max_tokens=100, messages=[{"role": "user", "content": "hi"}], stop_sequences=["said"]
        )
        counted = await client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "hi"}])
    [block] = reply.content
    assert block.type == "text" and block.text == "[simulated large] You "
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", "said")
    assert reply.usage.input_tokens == counted.input_tokens > 0


async def test_the_official_clients_stream_is_answered() -> None:
    async with (
        simulate("anthropic") as sim,
        anthropic.AsyncAnthropic(api_key="k", base_url=sim.base_url) as client,
        client.messages.stream(
            model=MODEL,
            max_tokens=500,
            messages=[{"role": "user", "content": "sim:reason call weather and now"}],
            tools=tools("anthropic"),  # type: ignore[arg-type]  # plain data
        ) as stream,
    ):
        final = await stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "tool_use", "tool_use"]
    assert final.stop_reason == "tool_use" and final.usage.input_tokens > 0
    calls = [block for block in final.content if block.type == "tool_use"]
    assert calls[0].input == {"city": "simulated"} and all(one.id.startswith("toolu_") for one in calls)
    assert final.content[0].type == "thinking" and final.content[0].signature


def test_a_stream_begins_with_the_counts_of_the_prompt_and_a_ping() -> None:
    data = body_of(Simulated("anthropic").answer(call("anthropic", body("anthropic", stream=True))))
    first, second, *_ = data.split(b"\n\n")
    assert orjson.loads(first.partition(b"data: ")[2])["message"]["usage"]["input_tokens"] > 0
    assert second.startswith(b"event: ping")


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"x-api-key": "", "authorization": ""}, 401, "x-api-key header is required"),
        ({"x-api-key": "wrong"}, 401, "invalid x-api-key"),
        ({"x-api-key": "", "authorization": "Bearer right"}, 200, ""),
        ({"x-api-key": "right", "anthropic-version": "2024-01-01"}, 400, "not a valid version"),
    ],
)
def test_keys_and_versions(headers: dict[str, str], status: int, words: str) -> None:
    sim = Simulated("anthropic", Behaviour((SimModel(MODEL),), api_key="right"))
    got, reply = read(sim.answer(call("anthropic", body("anthropic"), **headers)))
    assert got == status and words in orjson.dumps(reply).decode()


def test_the_version_is_required() -> None:
    asked = call("anthropic", body("anthropic"))
    del asked.headers["anthropic-version"]
    assert read(Simulated("anthropic").answer(asked))[1]["error"]["message"] == "anthropic-version: header is required"


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"model": "x"}, 404, "not_found_error"),
        ({"max_tokens": None}, 400, "invalid_request_error"),
        ({"temperature": 1.0}, 400, "invalid_request_error"),
        ({"max_tokens": 999_999}, 400, "invalid_request_error"),
    ],
)
def test_refusals(fields: dict[str, Any], status: int, kind: str) -> None:
    got, reply = ask(Simulated("anthropic"), **fields)
    assert (got, reply["type"], reply["error"]["type"]) == (status, "error", kind)


@pytest.mark.parametrize(("raw", "status"), [(b"{", 400), (b"[1]", 400), (b"7", 400), (b"{}", 404)])
def test_what_is_no_request_is_refused(raw: bytes, status: int) -> None:
    assert read(Simulated("anthropic").answer(call("anthropic", raw)))[0] == status


def test_a_prompt_that_is_too_long() -> None:
    sim = Simulated("anthropic", Behaviour((SimModel(MODEL, context=50),)))
    status, reply = ask(sim, "x" * 4_000)
    assert status == 400 and reply["error"]["message"].startswith("prompt is too long: 1000 tokens > 50")


async def test_a_full_queue_is_overloaded() -> None:
    sim = Simulated("anthropic", Behaviour((SimModel(MODEL),), parallel=1, queue=0))
    await sim.house.gate.enter()
    status, reply = ask(sim)
    assert (status, reply["error"]["type"]) == (529, "overloaded_error")


def test_models_come_in_pages_with_their_abilities() -> None:
    sim = Simulated("anthropic", Behaviour(tuple(SimModel(f"claude-haiku-4-5-{n}") for n in range(3))))
    first = read(sim.answer(get("/v1/models", "limit=2")))[1]
    assert [one["id"] for one in first["data"]] == ["claude-haiku-4-5-0", "claude-haiku-4-5-1"]
    assert (first["has_more"], first["last_id"]) == (True, "claude-haiku-4-5-1")
    second = read(sim.answer(get("/v1/models", "limit=2&after_id=claude-haiku-4-5-1")))[1]
    assert ([one["id"] for one in second["data"]], second["has_more"]) == (["claude-haiku-4-5-2"], False)
    nothing = read(sim.answer(get("/v1/models", "limit=junk&after_id=claude-haiku-4-5-2")))[1]
    assert (nothing["data"], nothing["first_id"]) == ([], None)
    one = read(sim.answer(get("/v1/models/claude-haiku-4-5-0")))[1]
    assert one["capabilities"]["thinking"]["types"]["enabled"] == {"supported": True}
    assert one["capabilities"]["image_input"] == {"supported": True} and one["max_input_tokens"] == 32_768


def test_unknown_paths() -> None:
    assert read(Simulated("anthropic").answer(get("/v2")))[1]["error"]["type"] == "not_found_error"


# --- the prompt cache -----------------------------------------------------------------------------------------------


def usage(sim: Simulated, **fields: Any) -> tuple[int, int, int, int]:
    """Fresh, written, read, written for an hour."""
    found = ask(sim, **fields)[1]["usage"]
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    fresh, written, read_ = (found[name] for name in names)
    return fresh, written, read_, found["cache_creation"]["ephemeral_1h_input_tokens"]


def test_a_marked_prefix_is_written_once_and_then_read() -> None:
    sim = Simulated("anthropic", clock=ManualClock())
    system = [{"type": "text", "text": "s" * 4_000, **MARK}]
    fresh, written, read_, hour = usage(sim, system=system)
    assert written > 900 and (read_, hour) == (0, 0)
    again = usage(sim, system=system, text="another question")
    assert again[1:] == (0, written, 0)
    other = usage(sim, system=[{"type": "text", "text": "t" * 4_000, **MARK}])
    assert other[1] > 900 and other[2] == 0
    assert fresh + written == sum(usage(Simulated("anthropic"), system=[{"type": "text", "text": "s" * 4_000}]))


def test_a_longer_prefix_reads_the_shorter_and_writes_the_rest() -> None:
    sim = Simulated("anthropic")
    one, two = {"type": "text", "text": "a" * 4_000}, {"type": "text", "text": "b" * 4_000}
    _, first, _, _ = usage(sim, system=[{**one, **MARK}])
    _, written, read_, hour = usage(sim, system=[{**one, **MARK}, {**two, **HOUR}])
    assert read_ == first and 900 < written < 1_100 and hour == written


def test_the_whole_prompt_can_be_marked_at_once() -> None:
    sim = Simulated("anthropic")
    text = "x" * 4_000
    assert usage(sim, text=text, **MARK)[1] > 900
    assert usage(sim, text=text, **MARK)[2] > 900


def test_counting_needs_no_max_tokens() -> None:
    fields = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    asked = Call("POST", "/v1/messages/count_tokens", "", dict(HEADERS), orjson.dumps(fields))
    assert read(Simulated("anthropic").answer(asked))[1]["input_tokens"] > 0
