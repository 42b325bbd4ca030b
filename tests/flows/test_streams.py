"""Streams as official clients read them, where they are not as usual: in one piece, gone on with by another model,
given up for being slow; and the connections to upstreams after everybody left at random."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionChunk

from app.gateway.pace import HELD_TOKENS
from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.server import simulate
from tests.flows.asking import ANY, within
from tests.flows.raw import RawClient, chat, post
from tests.flows.service import KINDS, MODELS, Service, gateway, over, upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
each_kind = pytest.mark.parametrize("kind", KINDS)

SLOW: Final = Behaviour((SimModel("slow", tokens_per_second=4.0), SimModel("patient", first_token=0.6)))
PRICE: Final = {"price": {"input": 1, "output": 2}}
NEVER: Final = {"failures": 1_000, "rate": 1.0}
RELEASED: Final = HELD_TOKENS + 6
"""A piece that comes when the first ones have gone out already."""
CONTINUE: Final = {"x-tierway-continue": "true"}
TALK: Final[list[Any]] = [{"role": "user", "content": "sim:tokens=30"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unstreamed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Streaming is off, but for the agent `reader`."""
    async with over(
        Path(tmp_path_factory.mktemp("unstreamed")),
        KINDS,
        environ={"FEATURE_STREAMING": "false"},
        features={"overrides": {"agent": {"reader": {"streaming": True}}}},
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """`one/sim-plain` has a stand-in, `slow/slow` too."""
    async with simulate("openai") as one, simulate("vllm") as other, simulate("openai", SLOW) as slow:
        sims = {"one": one, "other": other, "slow": slow}
        upstreams = {name: upstream(sim, timeouts={"idle": 3.0}, breaker=NEVER) for name, sim in sims.items()}
        stands_in = {"fallback": ["other/sim-medium"], **ANY, **PRICE}
        models = {"one/sim-plain": stands_in, "slow/slow": stands_in, "other/sim-medium": PRICE}
        streaming = {"min_tokens_per_second": 8, "commit_after": 0.2, "ping": 0.1}
        folder = Path(tmp_path_factory.mktemp("streams"))
        async with gateway(folder, upstreams, sims, models=models, streaming=streaming) as running:
            yield running


async def chunks(client: openai.AsyncOpenAI, model: str, **more: Any) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(model=model, stream=True, **{"messages": TALK, **more})
    return [chunk async for chunk in stream]


def words(read: list[ChatCompletionChunk]) -> list[str]:
    return [said for chunk in read for choice in chunk.choices if (said := choice.delta.content)]


def told(read: list[ChatCompletionChunk]) -> dict[str, Any]:
    found: dict[str, Any] = (read[-1].model_extra or {})["tierway"]
    return found


# --- in one piece ---------------------------------------------------------------------------------------------------


@each_kind
async def test_without_streaming_a_stream_is_one_piece(unstreamed: Service, kind: str) -> None:
    """A client that streams must not notice but for the waiting, and the upstream is not asked to stream."""
    read = await chunks(unstreamed.openai(), MODELS[kind], stream_options={"include_usage": True})
    assert len(words(read)) == 1 and len(words(read)[0].split()) > 20
    assert read[-1].usage is not None and read[-1].usage.completion_tokens > 20
    assert unstreamed.sims[kind].asked[-1].fields.get("stream") is not True
    [finish] = [choice.finish_reason for chunk in read for choice in chunk.choices if choice.finish_reason]
    assert finish == "stop" and told(read)["model"] == MODELS[kind]


@each_kind
async def test_without_streaming_the_helpers_work(unstreamed: Service, kind: str) -> None:
    client = unstreamed.openai()
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    async with client.chat.completions.stream(
        model=MODELS[kind], messages=[{"role": "user", "content": "sim:tool=look"}], tools=[tool]
    ) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].finish_reason in ("stop", "tool_calls")


async def test_a_caller_may_stream_where_others_do_not(unstreamed: Service) -> None:
    """The flag is asked per caller, as every other."""
    read = await chunks(unstreamed.openai(), MODELS["vllm"], extra_headers={"x-tierway-agent": "reader"})
    assert len(words(read)) > 20


async def test_without_streaming_a_failure_keeps_its_status(unstreamed: Service) -> None:
    unstreamed.sims["vllm"].fault_next("bad_request")
    with pytest.raises(openai.BadRequestError):
        await chunks(unstreamed.openai(), MODELS["vllm"])


async def test_an_upstream_that_does_not_stream_is_no_obstacle(service: Service) -> None:
    service.sims["other"].fault_next("json_for_stream")
    read = await chunks(service.openai(), "other/sim-medium")
    assert len(words(read)) == 1 and len(words(read)[0].split()) > 20


async def test_comments_keep_the_line_open_until_the_piece_is_there(tmp_path: Path) -> None:
    async with simulate("openai", SLOW) as sim:
        options: dict[str, Any] = {"streaming": {"commit_after": 0.1, "ping": 0.1}}
        options["environ"] = {"FEATURE_STREAMING": "false"}
        async with gateway(tmp_path, {"slow": upstream(sim)}, {"slow": sim}, **options) as running:
            client = await RawClient.connect(running.port)
            await client.send(post(chat("slow/patient", "Hi", stream=True), connection="close"))
            received = (await client.rest()).decode()
            client.vanish()
    assert received.index(": ping\n\n") < received.index("data: ") and received.count('"content":"') == 2
    assert received.rstrip().removesuffix("0").rstrip().endswith("data: [DONE]")


# --- gone on with by another ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut", "cut_reset", "cut_clean", "stall", "error_mid", "no_finish"])
async def test_another_model_goes_on_where_the_caller_asked_for_it(service: Service, fault: str) -> None:
    """One whole answer for the official helper, which says who began it, and costs what both cost."""
    service.sims["one"].fault_next(fault, at=RELEASED)
    client, name = service.openai(), f"continued-{fault}"
    async with client.chat.completions.stream(
        model="one/sim-plain",
        messages=TALK,
        extra_headers={**CONTINUE, "x-request-id": name},
        stream_options={"include_usage": True},
    ) as stream:
        read = [event.chunk async for event in stream if event.type == "chunk"]
        final = await stream.get_final_completion()
    said = final.choices[0].message.content or ""
    assert final.choices[0].finish_reason == "stop" and "medium" in said
    about = told(read)
    assert (about["model"], about["continued_from"]) == ("other/sim-medium", "one/sim-plain")
    request = service.sims["other"].asked[-1].fields
    begun = request["messages"][1]
    assert begun["role"] == "assistant" and said.startswith(begun["content"]) and begun["content"]
    assert final.usage is not None

    async def is_logged() -> bool:
        return any(line["request_id"] == name for line in service.lines())

    await within(5, is_logged, "it is logged")
    [line] = [line for line in service.lines() if line["request_id"] == name]
    assert [attempt["model"] for attempt in line["attempts"]] == ["one/sim-plain", "other/sim-medium"]
    assert line["tokens_out"] == final.usage.completion_tokens and line["status"] == 200
    assert abs(line["cost_usd"] - about["cost_usd"]) < 1e-12 and about["cost_usd"] > 0


@pytest.mark.parametrize("headers", [{}, {"x-tierway-continue": "false"}])
async def test_elsewhere_the_helper_raises(service: Service, headers: dict[str, str]) -> None:
    service.sims["one"].fault_next("cut", at=RELEASED)
    with pytest.raises(openai.APIError) as caught:
        async with service.openai().chat.completions.stream(
            model="one/sim-plain", messages=TALK, extra_headers=headers
        ) as stream:
            async for _ in stream:
                pass
    assert caught.value.code == "upstream_failed"


# --- given up for being slow ----------------------------------------------------------------------------------------


async def test_a_model_that_starves_its_stream_is_replaced_unnoticed(service: Service) -> None:
    """Its first words are held back until they have come at the pace that was asked for."""
    read = await chunks(service.openai(), "slow/slow")
    assert "medium" in "".join(words(read)) and "continued_from" not in told(read)
    assert told(read)["attempts"] == 2 and told(read)["model"] == "other/sim-medium"


async def test_a_fast_model_is_not_troubled(service: Service) -> None:
    read = await chunks(service.openai(), "one/sim-plain")
    assert told(read)["attempts"] == 1 and len(words(read)) > 20


# --- everybody leaves -----------------------------------------------------------------------------------------------


async def test_the_connections_survive_whoever_left_at_random(unstreamed: Service) -> None:
    """A connection that somebody left in the middle of must never be the one that the next request gets."""
    client = unstreamed.openai(default_headers={"x-tierway-agent": "reader"})
    dice, end, sim = random.Random(5), asyncio.get_running_loop().time() + 3, unstreamed.sims["vllm"]
    sim.fault_some(0.3, "stall", "slow_head:seconds=0.02", "slow_drip:seconds=0.002", "cut", "gzip", "hang", seed=3)

    async def ask(streamed: bool) -> None:
        if streamed:
            await chunks(client, MODELS["vllm"])
        else:
            await client.chat.completions.create(model=MODELS["vllm"], messages=TALK)

    async def leaving() -> None:
        while asyncio.get_running_loop().time() < end:
            with contextlib.suppress(TimeoutError, openai.APIError):
                async with asyncio.timeout(dice.random() * 0.1):
                    await ask(dice.random() < 0.7)

    await asyncio.gather(*(leaving() for _ in range(40)))
    sim.no_faults()

    async def is_calm() -> bool:
        return all(call.over_at is not None or call.disconnected for call in sim.asked)

    await within(10, is_calm, "what was left is cancelled")
    await asyncio.gather(*(ask(number % 2 == 0) for number in range(100)))
    assert not unstreamed.lines("a fault of the gateway") and not sim.errors
