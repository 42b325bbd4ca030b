"""A gateway that takes requests while it cannot keep up serves nobody; one that gives up too soon is no better."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.telemetry.pressure import FULL, IN_A_ROW, LAG, MEMORY, Pressure, memory_there, resident


def pressure(memory: list[int], most: int | None = 1_000) -> Pressure:
    return Pressure(0.5, most, lambda: memory[0])


def test_nothing_is_too_much_at_first() -> None:
    assert cause(pressure([0])) is None


def cause(one: Pressure) -> str | None:
    return one.cause


def test_lateness_counts_only_when_it_lasts() -> None:
    """One late wake-up is a neighbour's doing, and no reason to turn anybody away."""
    one = pressure([0])
    for _ in range(IN_A_ROW - 1):
        one.observe(0.6)
    assert cause(one) is None
    one.observe(0.6)
    assert cause(one) == LAG
    one.observe(0.4)
    assert cause(one) is None


def test_memory_counts_at_once_and_until_there_is_some_again() -> None:
    memory = [1_000]
    one = pressure(memory)
    one.observe(0.0)
    assert cause(one) is None
    memory[0] = 1_001
    one.observe(0.0)
    assert cause(one) == MEMORY
    memory[0] = 999
    one.observe(0.0)
    assert cause(one) is None


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
