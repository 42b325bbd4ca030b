"""Who stops a gateway must not cut the answers under way, nor wait for ever for one that hangs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.api import stopping
from app.api.stopping import Stopping
from tests.api.wire import soon


class Rig:
    """A gateway with requests under way, and the server that hears of its end."""

    def __init__(self) -> None:
        self.stopping = Stopping(self.failed)
        self.gone = 0
        self.ends: list[str] = []
        self.go_on = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def failed(self, where: str, error: BaseException) -> None:
        raise AssertionError(where) from error

    def go(self) -> None:
        self.gone += 1

    def signal(self, grace: float = 30.0) -> None:
        self.stopping.signalled(grace, self.go)

    async def request(self, last_words: float = 0.0) -> None:
        with self.stopping.request():
            try:
                await self.go_on.wait()
                self.ends.append("whole")
            except asyncio.CancelledError:
                await asyncio.sleep(last_words)
                self.ends.append("told")

    async def begin(self, count: int, last_words: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        self.tasks += [loop.create_task(self.request(last_words)) for _ in range(count)]
        await soon(lambda: len(self.stopping.requests) == len(self.tasks))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await asyncio.gather(*made.tasks)


async def test_what_is_under_way_ends_before_the_server_hears_of_it(rig: Rig) -> None:
    await rig.begin(3)
    rig.signal()
    assert rig.stopping.begun
    await asyncio.sleep(0.15)
    assert rig.gone == 0
    rig.go_on.set()
    await soon(lambda: rig.gone == 1)
    assert rig.ends == ["whole"] * 3 and not rig.stopping.requests


async def test_who_has_nothing_to_do_stops_at_once(rig: Rig) -> None:
    rig.signal()
    await soon(lambda: rig.gone == 1)


async def test_who_waits_is_told_for_what_and_how_not_to(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C that seems to do nothing for five minutes is followed by kill -9."""
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(stopping.log, "warning", lambda words, **fields: lines.append((words, fields)))
    await rig.begin(2)
    rig.signal(0.05)
    await soon(lambda: rig.gone == 1)
    assert lines == [(stopping.WAITING, {"requests": 2, "seconds": 0.05})] and "Ctrl-C" in stopping.WAITING


async def test_what_takes_too_long_is_told_and_may_say_its_last_words(rig: Rig) -> None:
    await rig.begin(2, last_words=0.1)
    rig.signal(0.05)
    await soon(lambda: rig.gone == 1)
    assert rig.ends == ["told"] * 2


async def test_a_second_signal_hurries(rig: Rig) -> None:
    """Somebody stands there and waits; the answers are still told why they end."""
    await rig.begin(2, last_words=0.1)
    rig.signal()
    rig.signal()
    await soon(lambda: rig.gone == 1)
    assert rig.ends == ["told"] * 2


async def test_a_third_does_not_wait_for_last_words(rig: Rig) -> None:
    await rig.begin(1, last_words=1.0)
    rig.signal()
    rig.signal()
    await asyncio.sleep(0.2)
    rig.signal()
    await soon(lambda: rig.gone == 1)
    assert rig.ends == []


async def test_signals_are_heard_before_the_server_hears_them(rig: Rig) -> None:
    heard: list[Any] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        rig.stopping.follow([signal.SIGUSR1], 30.0)
        await rig.begin(1)
        signal.raise_signal(signal.SIGUSR1)
        await soon(lambda: rig.stopping.begun)
        assert heard == []
        rig.go_on.set()
        await soon(lambda: heard == [signal.SIGUSR1])
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, before)
