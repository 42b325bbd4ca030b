"""A gateway that takes requests while it cannot keep up serves nobody; one that gives up too soon is no better."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.clock import ManualClock
from app.telemetry.pressure import (
    FULL,
    LAG,
    LOOK_SECONDS,
    MEMORY,
    PATIENCE_SECONDS,
    REMEMBER_SECONDS,
    Pressure,
    memory_there,
    resident,
)


def pressure(memory: list[int], most: int | None = 1_000, clock: ManualClock | None = None) -> Pressure:
    return Pressure(0.1, most, lambda: memory[0], clock or ManualClock())


def test_nothing_is_too_much_at_first() -> None:
    assert cause(pressure([0])) is None


def cause(one: Pressure) -> str | None:
    return one.cause


class Busy:
    """An event loop that wakes up late, or in time."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.pressure = pressure([0], clock=self.clock)

    def runs(self, seconds: float, lag: float) -> str | None:
        for _ in range(round(seconds / (lag + 0.05))):
            self.clock.advance(lag + 0.05)
            self.pressure.observe(lag)
        return self.pressure.cause


def test_lateness_counts_only_when_it_lasts() -> None:
    """A thousand clients that come at once, or a neighbour, are no reason to turn anybody away."""
    loop = Busy()
    assert loop.runs(PATIENCE_SECONDS * 0.8, lag=0.2) is None
    assert loop.runs(0.05, lag=0.0) is None
    assert loop.runs(PATIENCE_SECONDS * 0.8, lag=0.2) is None
    assert loop.runs(PATIENCE_SECONDS * 0.4, lag=0.2) == LAG
    assert loop.runs(0.15, lag=0.1) is None


def test_who_had_too_much_just_now_takes_no_more_of_it() -> None:
    """Else the gateway would be late for two seconds of every three."""
    loop = Busy()
    assert loop.runs(PATIENCE_SECONDS * 1.2, lag=0.2) == LAG
    assert loop.runs(1.0, lag=0.0) is None
    assert loop.runs(0.25, lag=0.2) == LAG
    assert loop.runs(REMEMBER_SECONDS, lag=0.0) is None
    assert loop.runs(0.25, lag=0.2) is None


def test_memory_counts_until_there_is_some_again() -> None:
    memory, clock = [1_000], ManualClock()
    one = pressure(memory, clock=clock)
    seen = []
    for memory[0] in (1_000, 1_001, 999):
        one.observe(0.0)
        seen.append(cause(one))
        clock.advance(LOOK_SECONDS)
    assert seen == [None, MEMORY, None]


def test_the_system_is_not_asked_for_the_memory_all_the_time() -> None:
    """A gateway at rest would be busy with nothing else."""
    clock, asked = ManualClock(), list[float]()

    def memory() -> int:
        asked.append(clock.monotonic())
        return 0

    one = Pressure(0.1, 1, memory, clock)
    for _ in range(100):
        one.observe(0.0)
        clock.advance(LOOK_SECONDS / 10)
    assert len(asked) in (10, 11)


def test_without_a_bound_memory_is_no_reason() -> None:
    one = pressure([1 << 60], most=None)
    one.observe(0.0)
    assert cause(one) is None


def test_a_process_has_memory() -> None:
    assert resident() > 1_000_000


@pytest.mark.parametrize("text", [None, "", "12", "a b c"])
def test_where_the_system_does_not_tell_nothing_is_refused(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "statm"
    if text is not None:
        file.write_text(text)
    assert resident(file) == 0


def test_a_container_has_what_it_was_given(tmp_path: Path) -> None:
    """Else it is killed long before the machine's memory is full."""
    given, none, unlimited = tmp_path / "max", tmp_path / "none", tmp_path / "unlimited"
    given.write_text("1000000\n")
    unlimited.write_text("max\n")
    assert memory_there(1, (none, given, unlimited)) == int(1_000_000 * FULL)
    assert memory_there(4, (given,)) == int(1_000_000 * FULL / 4)
    assert memory_there(1, (none, unlimited)) > 1_000_000
