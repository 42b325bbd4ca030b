"""Clients that leave, at every point and in every way: nothing may stay behind, upstream or here."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from app.core.clock import SystemClock
from app.simulator.behaviour import DEFAULTS
from app.simulator.faults import fault as made
from app.simulator.record import Call
from tests.flows.raw import RawClient, chat, post
from tests.flows.service import KINDS, MODELS, Service, over

pytestmark = pytest.mark.asyncio(loop_scope="module")

each_kind = pytest.mark.parametrize("kind", KINDS)
clock = SystemClock()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    longer = {
        kind: replace(one, models=tuple(replace(model, max_output=200_000, context=1_000_000) for model in one.models))
        for kind, one in DEFAULTS.items()
    }
    notes = {MODELS["ollama"]: {"num_ctx": 200_000}}
    async with over(Path(tmp_path_factory.mktemp("leaving")), KINDS, longer, models=notes) as running:
        yield running


# --- what must be over ----------------------------------------------------------------------------------------------


def under_way(service: Service) -> list[Call]:
    """Replies that upstreams still make."""
    return [
        call for sim in service.sims.values() for call in sim.asked if call.over_at is None and call.left_at is None
    ]


async def within(seconds: float, true: Callable[[], bool], what: str) -> None:
    end = clock.monotonic() + seconds
    while not true():
        assert clock.monotonic() < end, what
        await asyncio.sleep(0.01)


def recorded(service: Service) -> Counter[str]:
    """How many log lines each request has."""
    return Counter(line["request_id"] for line in service.lines())


async def nothing_is_open(service: Service) -> None:
    """A request that was left is over a moment after its client is gone."""
    end = clock.monotonic() + 1
    while await service.metric("tierway_in_flight_requests") or await service.metric("tierway_streams_active"):
        assert clock.monotonic() < end, "a request is still counted"
        await asyncio.sleep(0.01)


# --- the points at which a client leaves ----------------------------------------------------------------------------

LONG = {"ollama": "sim:tokens=80000", "vllm": "sim:tokens=50000", "anthropic": "sim:tokens=60000"}
"""More than the kernel holds of an answer that nobody reads; frames are larger or smaller."""


async def mid_head(service: Service, client: RawClient, whole: bytes, kind: str) -> None:
    await client.send(whole[:40])


async def mid_body(service: Service, client: RawClient, whole: bytes, kind: str) -> None:
    await client.send(whole[:-10])


async def asked(service: Service, client: RawClient, whole: bytes, kind: str) -> None:
    """The upstream has the request."""
    before = len(service.sims[kind].asked)
    await client.send(whole)
    await within(5, lambda: len(service.sims[kind].asked) > before, "the upstream was not asked")


async def answering(service: Service, client: RawClient, whole: bytes, kind: str) -> None:
    """The first words have come."""
    await client.send(whole)
    await client.until(b"simulated")


async def not_reading(service: Service, client: RawClient, whole: bytes, kind: str) -> None:
    """The answer is longer than all buffers, and nobody reads."""
    await client.send(whole)
    await client.until(b"simulated")
    await asyncio.sleep(0.3)


Point = Callable[[Service, RawClient, bytes, str], Awaitable[None]]
POINTS: dict[str, tuple[Point, str | None, bool]] = {
    "in the middle of the head": (mid_head, None, False),
    "in the middle of the body": (mid_body, None, False),
    "before the upstream's headers": (asked, "hang", True),
    "before the first token": (asked, "hang_first", True),
    "in the middle of the answer": (answering, "stall", True),
    "while not reading": (not_reading, "slow_drip:size=20000:seconds=0.0005", True),
}
"""How to get there, what the upstream does meanwhile, and whether there is a request to be recorded."""


@each_kind
@pytest.mark.parametrize("point", POINTS)
async def test_leaving(service: Service, kind: str, point: str) -> None:
    """The model stops working for somebody who left (it costs money or a GPU), within a second; and the request is
    recorded, once."""
    go, fault, counts = POINTS[point]
    sim = service.sims[kind]
    for streamed in (True, False):
        if not streamed and go in (answering, not_reading):
            continue  # nothing comes before all of it
        for reset in (False, True):
            name = f"{kind}.{point.replace(' ', '-')}.{streamed}.{reset}".replace("'", "")
            if fault is not None:
                sim.fault_next(made(fault))
            client = await RawClient.connect(service.port, receive_buffer=4096)
            body = chat(MODELS[kind], LONG.get(kind, LONG["vllm"]) if go is not_reading else "Hi", stream=streamed)
            body["max_tokens"] = 120_000
            await go(service, client, post(body, x_request_id=name), kind)
            assert len(under_way(service)) == counts
            client.vanish(reset=reset)
            await within(1, lambda: not under_way(service), f"the upstream still works: {name}")
            if counts:
                await within(1, lambda: recorded(service)[name] == 1, f"not recorded: {name}")  # noqa: B023
                line = next(line for line in service.lines() if line["request_id"] == name)
                assert (line["status"], line["error_code"]) == (499, "client_gone")
            else:
                assert recorded(service)[name] == 0
            sim.no_faults()
    await nothing_is_open(service)


# --- a thousand of them ---------------------------------------------------------------------------------------------

FAULTS = (None, None, None, "slow_drip", "stall", "hang", "hang_first", "cut", "throttled")


async def kill(service: Service, number: int, dice: random.Random) -> None:
    """A request that is left at any point whatever."""
    kind = dice.choice(KINDS)
    streamed = dice.random() < 0.7
    fault = dice.choice(FAULTS)
    text = dice.choice(("Hello", "sim:tokens=300", "sim:tokens=3000")) + (f" sim:fault={fault}" if fault else "")
    whole = post(chat(MODELS[kind], text, stream=streamed), x_request_id=f"kill-{number}")
    client = await RawClient.connect(service.port, receive_buffer=8192)
    cut = dice.randrange(len(whole)) if dice.random() < 0.15 else len(whole)
    with contextlib.suppress(ConnectionError):
        await client.send(whole[:cut])
        if dice.random() < 0.5:
            with contextlib.suppress(TimeoutError):
                await client.more(dice.random() * 0.1)
        else:
            await asyncio.sleep(dice.random() * 0.1)
    client.vanish(reset=dice.random() < 0.5)


async def kills(service: Service, first: int, count: int) -> None:
    dice, gate = random.Random(first), asyncio.Semaphore(40)

    async def one(number: int) -> None:
        async with gate:
            await kill(service, number, dice)

    await asyncio.gather(*(one(first + number) for number in range(count)))
    await within(1, lambda: not under_way(service), "an upstream still works")


def footprint() -> tuple[int, int, float]:
    """Tasks, file descriptors and resident megabytes of this process, without what the allocator keeps for later: how
    much that is depends on how busy the machine was."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def test_a_thousand_leave(service: Service) -> None:
    """Leaving costs nothing that stays: no task, no descriptor, no memory, and no request is recorded twice or lost
    half-way."""
    await kills(service, 0, 200)
    await asyncio.sleep(0.2)
    tasks, descriptors, megabytes = footprint()
    await kills(service, 200, 1_000)
    await within(1, lambda: len(asyncio.all_tasks()) <= tasks + 1, "tasks stay behind")
    # Connections to upstreams are kept for four seconds.
    await within(8, lambda: footprint()[1] <= descriptors + 8, "file descriptors stay behind")
    assert footprint()[2] <= megabytes + 25, "memory stays behind"
    counts = {name: count for name, count in recorded(service).items() if name.startswith("kill-")}
    assert set(counts.values()) == {1}
    assert len(counts) > 800, "most were whole requests"
    await nothing_is_open(service)
    assert await service.metric("tierway_requests_total") == sum(recorded(service).values())
    gone = sum(line["error_code"] == "client_gone" for line in service.lines())
    assert await service.metric("tierway_clients_gone_total") == gone
    assert not service.lines("a fault of the gateway")


@each_kind
async def test_a_thousand_stay(service: Service, kind: str) -> None:
    """A thousand requests in a row, on one connection, streamed and not: not one error."""
    client = await RawClient.connect(service.port)
    for streamed in (True, False):
        whole = post(chat(MODELS[kind], "Again", stream=streamed, max_tokens=3))
        end = b"data: [DONE]\n\n" if streamed else b"}"
        for _ in range(1_000):
            await client.send(whole)
            status, body = await client.reply()
            assert status == 200 and end in body and b'"error"' not in body
    client.vanish()
