"""Without these a scripted fault hits the wrong request, and a test of fail-over tests nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import orjson
import pytest

from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.faults import CATALOGUE
from app.simulator.script import Script, head_of
from app.simulator.server import simulate
from app.simulator.simulated import REMEMBERED, Simulated
from tests.simulator.asking import KINDS, PATHS, body, call, get, post


def status(script: Script) -> int:
    head = head_of(script)
    assert head is not None
    return head.status


def statuses(sim: Simulated, count: int, **more: Any) -> list[int]:
    return [status(sim.answer(call(sim.kind, body(sim.kind, **more)))) for _ in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_answers_over_a_socket_and_remembers(kind: str) -> None:
    async with simulate(kind) as sim:
        for stream in (False, True):
            got, _, data = await post(sim, body(kind, "hi", stream=stream))
            assert got == 200 and b"simulat" in data
        assert [one.fields["stream"] for one in sim.asked] == [False, True]
        assert sim.requests[0].path == PATHS[kind] and sim.running == 0


def test_a_fault_happens_as_often_as_it_was_scripted() -> None:
    sim = Simulated("openai")
    sim.fault_next("throttled", times=2)
    sim.fault_next("server_error")
    assert statuses(sim, 4) == [429, 429, 500, 200]
    assert [one.fault for one in sim.requests] == ["throttled", "throttled", "server_error", None]


def test_a_fault_lasts_until_it_is_ended() -> None:
    sim = Simulated("openai")
    sim.fault_always("server_error", status=599)
    assert statuses(sim, 3) == [599] * 3
    sim.no_faults()
    assert statuses(sim, 1) == [200]


def test_faults_may_happen_to_a_share_by_a_seed() -> None:
    """A failure of a test that throws dice must happen again when it is run again."""

    def thrown(seed: int) -> list[int]:
        sim = Simulated("openai")
        sim.fault_some(0.1, "server_error", "throttled", seed=seed)
        return statuses(sim, 1_000)

    seen = thrown(1)
    assert seen == thrown(1) != thrown(2)
    assert 70 < 1_000 - seen.count(200) < 130 and min(seen.count(500), seen.count(429)) > 25


def test_a_fault_may_be_one_models_alone() -> None:
    sim = Simulated("openai", Behaviour((SimModel("a"), SimModel("b"))))
    sim.fault_always("server_error", model="b")
    assert statuses(sim, 1, model="a") + statuses(sim, 1, model="b") == [200, 500]


def test_faults_leave_discovery_alone_unless_told_otherwise() -> None:
    sim = Simulated("openai")
    sim.fault_next("server_error")
    assert status(sim.answer(get("/v1/models"))) == 200
    sim.no_faults()
    sim.fault_next("server_error", path="/v1/mod*")
    assert statuses(sim, 1) == [200]
    assert status(sim.answer(get("/v1/models"))) == 500


def test_a_message_can_ask_for_its_own_fault() -> None:
    sim = Simulated("openai")
    assert status(sim.answer(call("openai", body("openai", "x sim:fault=throttled")))) == 429
    assert status(sim.answer(call("openai", body("openai", "x sim:fault=server_error:status=599 y")))) == 599
    assert status(sim.answer(call("openai", body("openai", "x sim:fault=nothing")))) == 200
    assert status(sim.answer(call("openai", {**body("openai", "x"), "user": "sim:fault=throttled"}))) == 200


def test_what_is_remembered_is_bounded() -> None:
    sim = Simulated("ollama")
    for _ in range(REMEMBERED + 5):
        sim.answer(get("/"))
    assert len(sim.requests) == REMEMBERED


async def test_a_request_that_was_bent_is_remembered_as_it_came() -> None:
    async with simulate("openai") as sim:
        sim.fault_next("json_for_stream")
        _, kind, _ = await post(sim, body("openai", stream=True))
        assert kind == "application/json" and sim.requests[-1].fields["stream"] is True


async def test_a_port_that_refuses_for_a_while() -> None:
    async with simulate("openai") as sim:
        sim.fault_next("refuse", seconds=0.1)
        with pytest.raises(aiohttp.ClientError):
            await post(sim, body("openai"))
        with pytest.raises(aiohttp.ClientConnectorError):
            await post(sim, body("openai"))
        await asyncio.sleep(0.2)
        assert (await post(sim, body("openai")))[0] == 200


async def test_a_port_that_refuses_until_told_otherwise() -> None:
    async with simulate("openai") as sim:
        sim.refuse()
        with pytest.raises(aiohttp.ClientConnectorError):
            await post(sim, body("openai"))
        await sim.accept()
        assert (await post(sim, body("openai")))[0] == 200


@pytest.mark.parametrize("name", ["cut", "cut_reset", "hang_up", "reset"])
async def test_connections_break_for_real(name: str) -> None:
    async with simulate("openai") as sim:
        sim.fault_next(name)
        with pytest.raises(aiohttp.ClientError):
            await post(sim, body("openai", stream=True))


async def test_a_crash_resets_what_is_open() -> None:
    async with simulate("openai") as sim:
        sim.fault_next("hang")
        task = asyncio.ensure_future(post(sim, body("openai")))
        await until(lambda: bool(sim.requests))
        assert sim.open_connections == 1
        sim.drop_connections()
        with pytest.raises(aiohttp.ClientError):
            await task
        assert not sim.requests[0].disconnected


async def test_a_client_that_leaves_is_seen() -> None:
    async with simulate("ollama") as sim:
        sim.fault_next("stall")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(post(sim, body("ollama", stream=True)), 0.1)
        await until(lambda: sim.requests[0].disconnected)
        await until(lambda: sim.running == 0 and sim.open_connections == 0)


# --- over HTTP ------------------------------------------------------------------------------------------------------


async def control(sim: Simulated, method: str, path: str, **fields: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session:
        async with session.request(method, f"{sim.base_url}/_sim/{path}", json=fields) as reply:
            return reply.status, orjson.loads(await reply.read())


async def test_faults_are_scripted_over_http() -> None:
    async with simulate("openai") as sim:
        assert await control(sim, "GET", "faults") == (200, {n: one.explains for n, one in CATALOGUE.items()})
        got, rule = await control(sim, "POST", "faults", fault="server_error", times=None, status=599)
        assert (got, rule) == (200, {"fault": "server_error", "times": None, "model": None, "path": None})
        assert statuses(sim, 2) == [599, 599]
        assert await control(sim, "DELETE", "faults") == (200, {"faults": []})
        assert statuses(sim, 1) == [200]
        shown = (await control(sim, "GET", "requests"))[1]
        assert [one["fault"] for one in shown] == ["server_error", "server_error", None]


@pytest.mark.parametrize(
    ("fields", "got"),
    [
        ({}, [429, 200, 200, 200]),
        ({"times": 1}, [429, 200, 200, 200]),
        ({"times": 3}, [429, 429, 429, 200]),
        ({"times": None}, [429, 429, 429, 429]),
    ],
)
async def test_a_fault_lasts_as_often_as_it_is_said_and_once_where_it_is_not(
    fields: dict[str, Any], got: list[int]
) -> None:
    """The guide's lines: who rehearses an outage must know when it ends."""
    async with simulate("openai") as sim:
        assert (await control(sim, "POST", "faults", fault="throttled", **fields))[0] == 200
        assert statuses(sim, 4) == got


@pytest.mark.parametrize(
    "fields",
    [{}, {"fault": "nope"}, {"fault": "cut", "when": 1}, {"fault": "cut", "times": "x"}, {"fault": "cut", "model": 7}],
)
async def test_what_is_no_fault_is_refused(fields: dict[str, Any]) -> None:
    async with simulate("openai") as sim:
        assert (await control(sim, "POST", "faults", **fields))[0] == 400
        assert (await control(sim, "POST", "nothing"))[0] == 404
        assert statuses(sim, 1) == [200]
