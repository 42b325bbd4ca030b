"""The one door of CPU work: bounded, off the event loop, and honest about errors."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.core.pool import CpuPool


class Counted:
    """How many calls run at once."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()
        self.threads: set[str] = set()

    def __call__(self, barrier: threading.Event) -> int:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.threads.add(threading.current_thread().name)
        barrier.wait(0.02)
        with self._lock:
            self._now -= 1
        return self._now


@pytest.mark.parametrize("threads", [1, 2])
async def test_no_more_run_at_once_than_there_are_threads(threads: int) -> None:
    """Unbounded embedding would take the CPU from every stream that is open."""
    pool, counted = CpuPool(threads), Counted()
    try:
        await asyncio.gather(*(pool.run(counted, threading.Event()) for _ in range(6)))
    finally:
        pool.close()
    assert counted.most == threads
    assert all(name.startswith("cpu") for name in counted.threads)


async def test_arguments_go_in_and_results_and_errors_come_out() -> None:
    pool = CpuPool()
    try:
        assert await pool.run(int, "ff", base=16) == 255
        with pytest.raises(ValueError, match="invalid literal"):
            await pool.run(int, "no number")
    finally:
        pool.close()


async def test_the_event_loop_goes_on_meanwhile() -> None:
    """Work on the loop would hold up every stream."""
    pool, done = CpuPool(), threading.Event()
    try:
        running = asyncio.ensure_future(pool.run(done.wait, 10.0))
        await asyncio.sleep(0)
        assert not running.done()
        done.set()
        assert await running
    finally:
        pool.close()


async def test_closing_drops_what_waits_and_takes_nothing_new() -> None:
    """A shutdown must not wait for work that nobody needs any more."""
    pool, go = CpuPool(), threading.Event()
    running = asyncio.ensure_future(pool.run(go.wait, 10.0))
    waiting = asyncio.ensure_future(pool.run(int, "1"))
    await asyncio.sleep(0.01)
    pool.close()
    go.set()
    assert await running
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(RuntimeError):
        await pool.run(int, "1")
