"""Too much of everything: whoever is served is served as ever, whoever is not is told soon, nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.record import Call
from app.simulator.server import simulate
from app.telemetry.pressure import Pressure
from tests.flows.asking import Asking, Load, within
from tests.flows.raw import RawClient, chat, post
from tests.flows.service import MODELS, Service, gateway, upstream

MODEL: Final = MODELS["openai"]
QUICK: Final = SimModel("sim-plain")
SLOW: Final = SimModel("sim-plain", first_token=0.05)
LONG: Final = SimModel("sim-plain", tokens_per_second=10)
SOON: Final = 15.0


@contextlib.asynccontextmanager
async def over(
    folder: Path, model: SimModel = QUICK, settings: Mapping[str, Any] | None = None, **config: Any
) -> AsyncIterator[tuple[Service, Asking]]:
    async with simulate("openai", Behaviour((model,))) as sim:
        upstreams = {"openai": upstream(sim, **(settings or {}))}
        async with gateway(folder, upstreams, {"openai": sim}, **config) as service, Asking(service) as asking:
            yield service, asking


def most_at_once(calls: list[Call]) -> int:
    """By the upstream's own count."""
    ends = [(call.over_at or call.left_at or float("inf"), -1) for call in calls]
    now = most = 0
    for _, change in sorted([(call.at, 1) for call in calls] + ends):
        now += change
        most = max(most, now)
    return most


async def waiting(service: Service, count: int) -> None:
    async def so_many() -> bool:
        return await service.metric("tierway_upstream_waiting", upstream="openai") == count

    await within(SOON, so_many, f"{count} wait")


async def asked(service: Service, count: int) -> None:
    async def so_many() -> bool:
        await asyncio.sleep(0)
        return len(service.sims["openai"].asked) >= count

    await within(SOON, so_many, f"{count} were asked")


def spoken(service: Service) -> list[str]:
    return [call.fields["messages"][-1]["content"] for call in service.sims["openai"].asked]


# --- an upstream ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_never_has_more_calls_than_its_ceiling(tmp_path: Path, stream: bool) -> None:
    """A local model with room for three answers everybody, one after the other, instead of failing."""
    async with over(tmp_path, SLOW, {"max_concurrency": 3}) as (service, asking):
        replies = await asyncio.gather(*(asking.chat(f"Hello {n}", MODEL, stream=stream) for n in range(12)))
        assert [(reply.status, reply.broke) for reply in replies] == [(200, False)] * 12
        assert most_at_once(service.sims["openai"].asked) == 3
        assert await service.metric("tierway_upstream_limit", upstream="openai") == 3
        assert await service.metric("tierway_shed_total") == 0
        await waiting(service, 0)


async def test_a_number_that_nobody_chose_is_not_in_the_way(tmp_path: Path) -> None:
    """A server that takes them all gets them all: what begins to answer at once has room for more."""
    async with over(tmp_path, LONG) as (service, asking):
        replies = await asyncio.gather(*(asking.chat("sim:tokens=20", MODEL, stream=True) for _ in range(48)))
        assert {reply.status for reply in replies} == {200}
        assert most_at_once(service.sims["openai"].asked) > 32


async def test_people_before_batches(tmp_path: Path) -> None:
    """One long batch must not keep a person waiting."""
    async with over(tmp_path, settings={"max_concurrency": 1}) as (service, _):
        service.sims["openai"].fault_next("hang")
        holder = await RawClient.connect(service.port)
        await holder.send(post(chat(MODEL, "holds the place")))
        await asked(service, 1)
        clients = []
        for count, (said, priority) in enumerate((("batch 1", "batch"), ("batch 2", "batch"), ("a person", None)), 1):
            clients.append(await RawClient.connect(service.port))
            await clients[-1].send(post(chat(MODEL, said), **({"x_tierway_priority": priority} if priority else {})))
            await waiting(service, count)
        holder.vanish()
        assert [(await client.reply())[0] for client in clients] == [200] * 3
        assert spoken(service) == ["holds the place", "a person", "batch 1", "batch 2"]
        for client in clients:
            client.vanish()


async def test_a_client_that_leaves_the_line_frees_its_place(tmp_path: Path) -> None:
    async with over(tmp_path, settings={"max_concurrency": 1}) as (service, asking):
        service.sims["openai"].fault_next("hang")
        holder, leaver = await RawClient.connect(service.port), await RawClient.connect(service.port)
        await holder.send(post(chat(MODEL, "holds the place")))
        await asked(service, 1)
        await leaver.send(post(chat(MODEL, "leaves", stream=True)))
        await waiting(service, 1)
        leaver.vanish()
        await waiting(service, 0)
        holder.vanish()
        assert (await asking.chat("comes later", MODEL)).status == 200
        assert spoken(service) == ["holds the place", "comes later"]


async def test_who_waited_long_enough_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with over(tmp_path, settings={"max_concurrency": 1}, limits={"queue_seconds": 0.2}) as (service, asking):
        service.sims["openai"].fault_next("hang")
        holder = await RawClient.connect(service.port)
        await holder.send(post(chat(MODEL, "holds the place")))
        await asked(service, 1)
        for stream in (False, True):
            reply = await asking.chat("in vain", MODEL, stream=stream)
            assert (reply.status, reply.code) == (503, "overloaded") and int(reply.headers["retry-after"]) >= 1
        assert spoken(service) == ["holds the place"]
        assert await service.metric("tierway_shed_total", cause="upstream") == 2
        holder.vanish()
        assert (await asking.chat("comes later", MODEL)).status == 200


async def test_an_upstream_that_turns_calls_away_gets_fewer(tmp_path: Path) -> None:
    async with over(tmp_path, settings={"max_concurrency": 10}) as (service, asking):
        service.sims["openai"].fault_next("unavailable")
        assert (await asking.chat("Hello", MODEL)).status in (200, 503)
        assert await service.metric("tierway_upstream_limit", upstream="openai") == 7


# --- the gateway ----------------------------------------------------------------------------------------------------

CAUSES: Final[dict[str, dict[str, Any]]] = {
    "in_flight": {"in_flight": 2},
    "event_loop_lag": {"in_flight": 40},
    "memory": {"in_flight": 40, "memory_bytes": 1_024},
}


@pytest.mark.parametrize("cause", CAUSES)
async def test_what_is_too_much_is_refused_before_its_body_is_read(
    tmp_path: Path, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a kilobyte of memory; a lag that somebody measured."""
    if cause == "event_loop_lag":
        measured = Pressure.observe
        monkeypatch.setattr(Pressure, "observe", lambda pressure, lag: measured(pressure, 2.5))
    async with over(tmp_path, limits=CAUSES[cause]) as (service, asking):
        service.sims["openai"].fault_next("hang", times=2)
        holders = [await RawClient.connect(service.port) for _ in range(2)]
        for holder in holders:
            await holder.send(post(chat(MODEL, "goes on")))
        await asked(service, 2)

        async def refused() -> bool:
            return (await asking.chat("too much", MODEL)).code == "overloaded"

        await within(SOON, refused, f"refused by {cause}")
        client = await RawClient.connect(service.port)
        await client.send(post(chat(MODEL, "too much"))[:-5])  # the rest never comes
        status, answer = await client.reply()
        assert status == 503 and b'"overloaded"' in answer
        client.vanish()
        assert await service.metric("tierway_shed_total", cause=cause) >= 1
        for holder in holders:
            holder.vanish()

        async def served() -> bool:
            return (await asking.chat("few are served in any case", MODEL)).status == 200

        await within(SOON, served, "what goes on is not too much")


async def test_refusals_do_not_disturb_what_is_served(tmp_path: Path) -> None:
    """Three times as many clients as there is room for: every answer is whole, every refusal says so."""
    async with over(tmp_path, SLOW, limits={"in_flight": 4}, aliases={"any": MODEL}) as (service, asking):
        async with Load(asking, 12, pause=0.005) as load:
            await load.more(200)

            async def enough() -> bool:
                await asyncio.sleep(0)
                return sum(reply.status == 200 for reply in load.replies) >= 20

            await within(SOON, enough, "answers in between")
        assert {reply.code for reply in load.replies} == {None, "overloaded"}
        assert not any(reply.broke for reply in load.replies)
        assert most_at_once(service.sims["openai"].asked) <= 4
        refused = [reply for reply in load.replies if reply.status == 503]
        assert all(reply.headers["retry-after"] == "1" for reply in refused)
        assert len(refused) == await service.metric("tierway_shed_total", cause="in_flight")
