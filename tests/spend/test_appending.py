"""Without these a request would wait for the disk, fail with it, or believe in vain that something is written."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from app.spend.appending import Appender


class Disk:
    """Takes batches, unless it is full or stuck."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.full = False
        self.fault: Exception | None = None
        self.free = threading.Event()
        self.free.set()

    def write(self, batch: Sequence[int]) -> None:
        self.free.wait(10)
        if self.full:
            raise OSError(28, "No space left on device")
        if self.fault is not None:
            raise self.fault
        self.batches.append(list(batch))

    @property
    def items(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


@contextlib.asynccontextmanager
async def appending(disk: Disk, **more: float) -> AsyncIterator[Appender[int]]:
    appender = Appender(disk.write, "diary", **{"linger": 0.0, "retry": 0.01, **more})  # type: ignore[arg-type]
    appender.start()
    try:
        yield appender
    finally:
        disk.free.set()
        await appender.aclose()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.002)


async def test_what_is_added_is_written_in_order_and_in_batches() -> None:
    disk = Disk()
    async with appending(disk, linger=0.01) as appender:
        for number in range(100):
            appender.add(number)
        assert await appender.flush()
        assert disk.items == [*range(100)] and len(disk.batches) == 1
        assert await appender.flush()  # nothing to wait for


async def test_many_may_wait_for_one_batch() -> None:
    disk = Disk()
    async with appending(disk) as appender:
        appender.add(1)
        assert await asyncio.gather(*(appender.flush() for _ in range(5))) == [True] * 5


async def test_waiting_while_a_batch_is_on_its_way() -> None:
    """Its end may be the last thing that ever happens here."""
    disk = Disk()
    async with appending(disk) as appender:
        disk.free.clear()
        appender.add(1)
        await asyncio.sleep(0.02)
        waiting = asyncio.gather(*(appender.flush() for _ in range(2)))
        await asyncio.sleep(0.01)
        disk.free.set()
        assert await waiting == [True, True]


async def test_a_full_disk_is_said_once_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    disk.full = True
    async with appending(disk) as appender:
        appender.add(1)
        assert not await appender.flush() and not appender.healthy
        appender.add(2)
        assert not await appender.flush()  # at once
        await asyncio.sleep(0.05)
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert "No space left on device" in caplog.text
        disk.full = False
        await until(lambda: appender.healthy)
        assert disk.items == [1, 2] and appender.lost == 0 and await appender.flush()
        assert "written again" in caplog.text


async def test_a_stuck_disk_keeps_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    async with appending(disk, patience=0.02) as appender:
        disk.free.clear()
        appender.add(1)
        assert not await appender.flush() and not appender.healthy
        disk.free.set()
        await until(lambda: appender.healthy)
        assert disk.items == [1]


async def test_memory_is_bounded() -> None:
    disk = Disk()
    disk.full = True
    async with appending(disk, most_kept=10) as appender:
        for number in range(15):
            appender.add(number)
        assert appender.lost == 5
        await until(lambda: not appender.healthy)
        appender.add(99)
        assert appender.lost >= 5
        disk.full = False
        await until(lambda: appender.healthy)
        assert disk.items[0] == 0 and len(disk.items) <= 11


async def test_what_was_gathered_beside_a_failed_batch_is_bounded_too() -> None:
    disk = Disk()
    disk.full = True
    async with appending(disk, most_kept=4, retry=5.0) as appender:
        disk.free.clear()
        for number in range(4):
            appender.add(number)
        await asyncio.sleep(0.02)
        for number in range(4, 8):
            appender.add(number)
        disk.free.set()
        await until(lambda: not appender.healthy)
        assert appender.lost == 4
        disk.full = False
    assert disk.items == [4, 5, 6, 7]  # the newest, written at closing


async def test_closing_writes_the_rest_and_gives_up_on_a_full_disk() -> None:
    disk = Disk()
    async with appending(disk, linger=0.05) as appender:
        appender.add(1)
        waiting = asyncio.ensure_future(appender.flush())
        await asyncio.sleep(0)
        assert await appender.aclose() and await waiting
    assert disk.items == [1]
    disk.full = True
    async with appending(disk, retry=60.0) as appender:
        appender.add(2)
        assert not await appender.flush()
        assert await appender.aclose() and not await appender.flush()


async def test_closing_does_not_wait_for_a_stuck_disk(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    async with appending(disk, patience=0.02) as appender:
        disk.free.clear()
        appender.add(1)
        assert not await appender.aclose() and "in time" in caplog.text


async def test_a_fault_of_ours_costs_one_batch(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    disk.fault = TypeError("not bytes")
    async with appending(disk) as appender:
        appender.add(1)
        assert not await appender.flush()
        assert appender.lost == 1 and "not bytes" in caplog.text
        disk.fault = None
        appender.add(2)
        assert await appender.flush() and disk.items == [2]


async def test_whoever_leaves_while_waiting_does_no_harm() -> None:
    disk = Disk()
    async with appending(disk) as appender:
        disk.free.clear()
        appender.add(1)
        waiting = asyncio.ensure_future(appender.flush())
        await asyncio.sleep(0.01)
        waiting.cancel()
        disk.free.set()
        assert await appender.flush()


async def test_before_the_start_nothing_is_promised() -> None:
    appender = Appender(Disk().write, "diary")
    assert await appender.flush()
    appender.add(1)
    assert not await appender.flush()
