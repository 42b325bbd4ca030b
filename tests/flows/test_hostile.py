"""Nonsense from both sides: requests and replies with anything anywhere. Never a 500, never an answer that looks whole
and is not. Seeds are fixed, so that what fails once fails again."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import orjson
import pytest
import pytest_asyncio

from app.simulator import bends
from app.simulator.faults import CATALOGUE, Fault, Kind
from app.simulator.script import Script
from app.simulator.wires import Wire
from tests.flows.service import KINDS, MODELS, Service, over
from tests.flows.test_chat import PERSON, PIXEL, TIME, WEATHER

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALL: Final = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "x"}'}}
SEEN: Final = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}
BODIES: Final[tuple[dict[str, Any], ...]] = (
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}, SEEN]},
        ],
        **{"temperature": 0.5, "max_tokens": 50, "stop": ["zz"], "metadata": {"a": "b"}, "user": "u", "seed": 3},
    },
    {
        "messages": [
            {"role": "user", "content": "call weather"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
        **{"tools": [WEATHER, TIME], "tool_choice": "auto", "parallel_tool_calls": False},
    },
    {
        "messages": [{"role": "user", "content": "A person"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON, "strict": True}},
        "stream_options": {"include_usage": True},
    },
    {
        "messages": [
            {"role": "user", "content": "x", "name": "bob"},
            {"role": "assistant", "content": "y", "reasoning_content": "z"},
            {"role": "user", "content": "call weather and call time"},
        ],
        **{"tools": [WEATHER, TIME], "reasoning_effort": "high"},
    },
)
ODD: Final[tuple[Any, ...]] = (
    *(
        None,
        0,
        1,
        -1,
        1e308,
        10**18,
        3.7,
        True,
        False,
        "",
        "x",
        "\x00",
        "é" * 3,
        "null",
        "{}",
        "data:image/png;base64,%",
    ),
    *([], {}, [None], [[]], [{}], {"type": None}, {"type": "text"}, {"": 1}, {"role": "user"}),
)
NAMES: Final = ("extra", "type", "content", "name", "id", "text", "index", "error")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in it with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def bent(value: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """The value with something changed, dropped or added, one to three times."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        found = list(places(value))
        if not found:
            break
        container, key = dice.choice(found)
        what, odd = dice.random(), copy.deepcopy(dice.choice(ODD))
        if what < 0.75:
            container[key] = odd
        elif what < 0.9:
            del container[key]
        elif isinstance(container, dict):
            container[dice.choice(NAMES)] = odd
        else:
            container.append(odd)
    return value


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    once = {"fallback": {"max_attempts": 1}}  # a second try would only cost time
    async with over(Path(tmp_path_factory.mktemp("hostile")), KINDS, routing=once) as running:
        yield running


@contextlib.asynccontextmanager
async def faultless(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A client; and whatever it does, no fault of ours is logged."""
    async with httpx2.AsyncClient(base_url=f"{service.url}/v1", timeout=15) as client:
        yield client
    assert service.lines("a fault of the gateway") == []


def check(reply: httpx2.Response, about: object) -> None:
    """One of the three ways in which a request may end."""
    if "event-stream" not in reply.headers["content-type"]:
        body = reply.json()
        if reply.status_code != 200:
            assert reply.status_code != 500 and set(body["error"]) == {"message", "type", "param", "code"}, about
        else:
            assert all(choice["finish_reason"] for choice in body["choices"]), about
        return
    *events, last = [event.removeprefix("data: ") for event in reply.text.split("\n\n") if event]
    if last == "[DONE]":
        assert any(choice["finish_reason"] for event in events for choice in orjson.loads(event)["choices"]), about
    else:
        assert set(orjson.loads(last)) == {"error"}, about


@pytest.mark.parametrize("seed", range(3))
async def test_nonsense_from_clients(service: Service, seed: int) -> None:
    """A client's mistake is answered as one, with its field named; it is never an error of ours."""
    dice = random.Random(seed)
    async with faultless(service) as client:
        for _ in range(150):
            model = MODELS[dice.choice(KINDS)]
            body = {"model": model, **bent(dice.choice(BODIES), dice), "stream": dice.random() < 0.3}
            check(await client.post("/chat/completions", content=orjson.dumps(body)), body)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
async def test_nonsense_from_upstreams(service: Service, monkeypatch: pytest.MonkeyPatch, kind: str, seed: int) -> None:
    """Whatever an upstream writes into its JSON, the client gets an answer with an end, or an error."""
    dice = random.Random(seed)

    def bend(script: Script, wire: Wire, _: Fault) -> Script:
        share = 0.25 if bends.is_stream(script) else 1.0
        return bends.edited(script, wire, lambda value: bent(value, dice) if dice.random() < share else value)

    monkeypatch.setitem(CATALOGUE, "nonsense", Kind("anything anywhere", bend))
    service.sims[kind].fault_always("nonsense")
    async with faultless(service) as client:
        for number in range(40):
            body = {"model": MODELS[kind], **dice.choice(BODIES), "stream": number % 2 == 0}
            check(await client.post("/chat/completions", json=body), (seed, number))
    service.sims[kind].no_faults()
