"""Without this a machine that serves eight at a time is charged eight times, or once for eight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.clock import ManualClock
from app.spend.machines import Machines


def test_who_is_alone_takes_all_of_it() -> None:
    clock = ManualClock()
    machines = Machines(clock)
    mark = machines.started("gpu")
    clock.advance(10)
    assert machines.ended("gpu", mark) == 10
    clock.advance(50)
    mark = machines.started("gpu")
    clock.advance(1)
    assert machines.ended("gpu", mark) == 1


def test_those_who_run_at_once_divide_it_among_them() -> None:
    clock = ManualClock()
    machines = Machines(clock)
    first = machines.started("gpu")
    clock.advance(4)
    second, elsewhere = machines.started("gpu"), machines.started("ollama")
    clock.advance(6)
    assert machines.ended("gpu", first) == 4 + 3
    clock.advance(1)
    assert machines.ended("gpu", second) == 3 + 1
    assert machines.ended("ollama", elsewhere) == 7


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 100)), max_size=60))
def test_what_all_took_is_the_time_in_which_it_was_used(steps: list[tuple[bool, int, int]]) -> None:
    """However they overlap, no second is charged twice and none is lost."""
    clock = ManualClock()
    machines = Machines(clock)
    running: list[float] = []
    took = busy = 0.0
    for begins, which, seconds in steps:
        if begins:
            running.append(machines.started("gpu"))
        elif running:
            took += machines.ended("gpu", running.pop(which % len(running)))
        busy += seconds if running else 0
        clock.advance(seconds)
    while running:
        took += machines.ended("gpu", running.pop())
    assert took == pytest.approx(busy)
