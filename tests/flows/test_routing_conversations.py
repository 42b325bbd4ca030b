"""Conversations keep their model: always inside a tool loop, and otherwise unless changing it is worth it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.server import simulate
from tests.flows.asking import ADMIN, ANY, Asking, within
from tests.flows.service import Service, gateway, upstream

pytestmark = pytest.mark.asyncio(loop_scope="function")

TOOL = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object", "properties": {}}}}
PRICES = {"first": 1, "second": 1, "third": 5}
"""The model of each upstream, in the order of the file, with its price: all are paid, so that money has a say."""
TURNS = 30
LOOPS = (1, 8, 14, 22)
"""The turns on which the person says something; on all others the agent goes on with what its tools said."""


@contextlib.asynccontextmanager
async def house(folder: Path) -> AsyncIterator[tuple[Service, Asking]]:
    """Three upstreams with one model each."""
    async with contextlib.AsyncExitStack() as stack:
        sims = {
            name: await stack.enter_async_context(simulate("openai", Behaviour((SimModel(f"m-{name}", name),))))
            for name in PRICES
        }
        upstreams = {name: upstream(sim, max_concurrency=4, breaker={"open": 0.3}) for name, sim in sims.items()}
        notes = {
            f"{name}/m-{name}": {**ANY, "price": {"input": price, "output": price}} for name, price in PRICES.items()
        }
        service = await stack.enter_async_context(gateway(folder, upstreams, sims, environ=ADMIN, models=notes))
        yield service, await stack.enter_async_context(Asking(service))


def recorded(turns: int = TURNS) -> list[list[dict[str, Any]]]:
    """What a coding agent sends, turn by turn: each time all that was said before."""
    said: list[dict[str, Any]] = [{"role": "system", "content": "You are a careful programmer."}]
    sent = []
    for turn in range(1, turns + 1):
        if turn in LOOPS:
            said = [*said, {"role": "user", "content": f"Task {turn}: look into module {turn} and mend what is wrong."}]
        else:
            call = {"id": f"call_{turn}", "type": "function", "function": {"name": "read_file", "arguments": "{}"}}
            said = [
                *said,
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call["id"], "content": f"def f{turn}(): return {turn}"},
            ]
        sent.append(said)
        if turn + 1 in LOOPS:
            said = [*said, {"role": "assistant", "content": f"Task done at turn {turn}."}]
    return sent


@pytest.mark.parametrize("model", ["auto", "auto:quality", "auto:adaptive"])
async def test_a_tool_loop_keeps_its_model(tmp_path: Path, model: str) -> None:
    """An agent of thirty turns: whatever happens meanwhile to the model it began with and to the others (they are
    cheaper, faster, well again, less busy), no loop of tool calls is finished by another model than began it."""
    async with house(tmp_path) as (service, asking):
        service.sims["first"].fault_next("throttled", retry_after="1")
        served: list[str | None] = []
        for turn, messages in enumerate(recorded(), 1):
            stream = turn % 2 == 0
            async with contextlib.AsyncExitStack() as stack:
                if turn % 5 == 0:  # its upstream is busy, the others are free
                    await stack.enter_async_context(busy(service, asking, str(served[-1]).partition("/")[0]))
                reply = await asking.chat(messages, model, stream=stream, tools=[TOOL])
            assert reply.status == 200, reply.text
            served.append(reply.model)
            if turn == 12:  # by now the first one of the file, and the cheapest, is well again
                await asyncio.sleep(1)
                assert (await asking.chat("Something else")).model == "first/m-first"
        loops = [served[begin - 1 : end - 1] for begin, end in zip(LOOPS, (*LOOPS[1:], TURNS + 1), strict=True)]
        assert [len(set(loop)) for loop in loops] == [1] * len(LOOPS), served
        assert served[0] != "first/m-first", "it began with another than would be chosen now"
        reasons = {line["reason"] for line in service.lines() if line["model"] == served[0]}
        assert any("keeps" in reason for reason in reasons)


@contextlib.asynccontextmanager
async def busy(service: Service, asking: Asking, name: str) -> AsyncIterator[None]:
    """An upstream has all the requests that it can take."""
    sim = service.sims[name]
    before = len(sim.asked)
    sim.fault_next("slow_head", times=4, seconds=0.3)
    loop = asyncio.get_running_loop()
    others = [loop.create_task(asking.chat("Slowly", f"{name}/m-{name}")) for _ in range(4)]

    async def all_asked() -> bool:
        return len(sim.asked) == before + 4

    await within(2, all_asked, "it is busy")
    yield
    assert {reply.status for reply in await asyncio.gather(*others)} == {200}


async def test_a_loop_goes_on_elsewhere_when_its_model_is_gone(tmp_path: Path) -> None:
    """Keeping a model is no reason to fail."""
    async with house(tmp_path) as (service, asking):
        turns = recorded(4)
        served = [(await asking.chat(messages, tools=[TOOL])).model for messages in turns[:2]]
        service.sims["first"].refuse()
        service.sims["first"].drop_connections()
        served += [(await asking.chat(messages, tools=[TOOL])).model for messages in turns[2:]]
        assert served == ["first/m-first"] * 2 + ["second/m-second"] * 2


async def test_a_conversation_is_told_by_its_session_or_by_how_it_began(tmp_path: Path) -> None:
    """Two agents that say the same words are one conversation only if they say so: each keeps its own model."""
    async with house(tmp_path) as (service, asking):
        one, two = recorded(2)
        service.sims["first"].fault_next("throttled", retry_after="0.5")
        assert (await asking.chat(one, session="a", tools=[TOOL])).model == "second/m-second"
        await asyncio.sleep(1.1)
        assert (await asking.chat(one, session="b", tools=[TOOL])).model == "first/m-first"
        assert (await asking.chat(two, session="a", tools=[TOOL])).model == "second/m-second"
        assert (await asking.chat(two, session="b", tools=[TOOL])).model == "first/m-first"
        assert (await asking.chat(two, tools=[TOOL])).model == "first/m-first", "nobody knows that one"
