"""Time that tests can move, and time that is real."""

from __future__ import annotations

import asyncio
import time

from app.core.clock import Clock, ManualClock, SystemClock


def test_a_manual_clock_stands_until_it_is_moved() -> None:
    """Tests of limits and lifetimes would otherwise depend on how fast the machine is."""
    clock: Clock = (manual := ManualClock(start=50.0))
    before = clock.now(), clock.monotonic()
    assert (clock.now(), clock.monotonic()) == before
    assert before[0] == 50.0
    manual.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (before[0] + 2.5, before[1] + 2.5)


async def test_the_system_clock_is_the_event_loops_own() -> None:
    """Deadlines are compared with the loop's time; another zero point would end every request at once, or never."""
    clock: Clock = SystemClock()
    assert abs(clock.monotonic() - asyncio.get_running_loop().time()) < 1
    assert abs(clock.now() - time.time()) < 1
    assert clock.monotonic() <= clock.monotonic()
