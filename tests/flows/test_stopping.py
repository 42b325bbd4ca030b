"""A new version is rolled out in the middle of everybody's answers: real processes, stopped by signals, lose none of
them and none of the money."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx2
import orjson
import pytest

from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.server import simulate
from tests.cli.test_serve import workers
from tests.flows.asking import within
from tests.flows.process import Gateway

MODEL: Final = "openai/sim-plain"
PACED: Final = Behaviour((SimModel("sim-plain", "plain", tokens_per_second=20.0, max_output=100_000),))


class Stream:
    """One client and what it has of its answer."""

    def __init__(self, client: httpx2.AsyncClient, url: str, tokens: int) -> None:
        self.text = ""
        self.error: Exception | None = None
        self._client, self._url = client, url
        self._body = {
            "model": MODEL,
            "stream": True,
            "max_tokens": tokens,
            "messages": [{"role": "user", "content": f"sim:tokens={tokens}"}],
        }

    async def read(self) -> None:
        url = f"{self._url}/v1/chat/completions"
        try:
            async with self._client.stream("POST", url, json=self._body) as reply:
                async for piece in reply.aiter_text():
                    self.text += piece
        except httpx2.HTTPError as error:
            self.error = error

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = [line.removeprefix("data: ") for line in self.text.split("\n\n") if line.startswith("data: ")]
        return [orjson.loads(line) for line in lines if line != "[DONE]"]

    @property
    def code(self) -> str | None:
        return next((event["error"]["code"] for event in self.events if "error" in event), None)

    @property
    def whole(self) -> bool:
        return self.error is None and self.text.endswith("data: [DONE]\n\n") and self.code is None

    @property
    def cost(self) -> Decimal:
        return sum((Decimal(str(each["tierway"]["cost_usd"])) for each in self.events if "tierway" in each), Decimal())


@contextlib.asynccontextmanager
async def streams(url: str, count: int, tokens: int) -> AsyncIterator[list[Stream]]:
    """So many streams, of which every client has the beginning."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=60, limits=limits) as client, asyncio.TaskGroup() as group:
        found = [Stream(client, url, tokens) for _ in range(count)]
        for each in found:
            group.create_task(each.read())
        await within(60, _true(lambda: all("simulated" in each.text for each in found)), "all have begun")
        yield found


def _true(condition: Any) -> Any:
    async def ask() -> bool:
        return bool(condition())

    return ask


@contextlib.asynccontextmanager
async def stopped(folder: Path, **streaming: Any) -> AsyncIterator[Gateway]:
    async with simulate("openai", PACED) as sim:
        gateway = Gateway(folder, sim.base_url, MODEL, **streaming)
        try:
            yield gateway
        finally:
            await asyncio.to_thread(gateway.close)


async def refused(url: str) -> tuple[int, int, str]:
    """What a probe and a request are told, on connections of their own."""
    async with httpx2.AsyncClient() as client:
        ready = await client.get(f"{url}/readyz")
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
        late = await client.post(f"{url}/v1/chat/completions", json=body)
        return ready.status_code, late.status_code, late.json()["error"]["code"]


def all_are_whole(found: Sequence[Stream]) -> None:
    broken = [(each.error, each.text[-300:]) for each in found if not each.whole]
    assert not broken, broken[:3]


async def test_a_hundred_streams_end_whole_and_every_cent_is_settled(tmp_path: Path) -> None:
    """Not one answer is cut, nobody new is let in, and the next process finds the books as they were billed."""
    async with stopped(tmp_path) as gateway:
        await gateway.start()
        async with streams(gateway.url, 100, 120) as found:
            gateway.command.process.send_signal(signal.SIGTERM)
            told: list[tuple[int, int, str]] = []

            async def is_closed() -> bool:
                told.append(await refused(gateway.url))
                return told[-1] == (503, 503, "shutting_down")

            await within(30, is_closed, "it says that it stops")
            assert any(not each.text.endswith("[DONE]\n\n") for each in found), "it says so while answers are under way"
        all_are_whole(found)
        assert await gateway.ended() == 0 and "Traceback" not in gateway.command.told
        billed = sum((each.cost for each in found), Decimal())
        assert billed == 100 * 120 * Decimal("0.00012")
        assert await gateway.standing() == (billed, Decimal())


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_hurries_and_loses_nothing(tmp_path: Path, second: signal.Signals) -> None:
    """Long before the grace is over: each answer says why it ends, and what it came to is settled."""
    async with stopped(tmp_path, grace=3_000) as gateway:
        await gateway.start()
        async with streams(gateway.url, 20, 20_000) as found:
            gateway.command.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            assert all(each.code is None for each in found), "there is time"
            gateway.command.process.send_signal(second)
        assert [each.code for each in found] == ["shutting_down"] * 20
        assert not any("[DONE]" in each.text for each in found)
        assert await gateway.ended() == 0 and "Traceback" not in gateway.command.told
        used, held = await gateway.standing()
        assert used > 0 and held == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are looked up in /proc")
@pytest.mark.parametrize("terminal", [False, True])
async def test_workers_stop_as_one_does(tmp_path: Path, terminal: bool) -> None:
    """The supervisor waits for the answers of all of them; also when a terminal interrupts all of them at once."""
    async with stopped(tmp_path) as gateway:
        await gateway.start(TIERWAY_WORKERS="2")
        pid = gateway.command.process.pid
        async with streams(gateway.url, 30, 60) as found:
            for each in workers(pid) if terminal else ():
                os.kill(each, signal.SIGINT)
            gateway.command.process.send_signal(signal.SIGINT if terminal else signal.SIGTERM)
        all_are_whole(found)
        assert await gateway.ended() == 0 and "Traceback" not in gateway.command.told
        assert await gateway.standing() == (30 * 60 * Decimal("0.00012"), Decimal())
