"""What keeps growing is found, and what only fills up, wanders or settles is not."""

from __future__ import annotations

import math

import pytest

from bench.growth import growing, growth

RUN = range(300)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([100.0] * 300, id="flat"),
        pytest.param([100 + min(50, second) for second in RUN], id="fills up at first"),
        pytest.param([100 + 60 * (1 - math.exp(-second / 60)) for second in RUN], id="fills up slowly"),
        pytest.param([10.0 + 13 * (second > 170) for second in RUN], id="has more to do from then on"),
        pytest.param([100 + 3 * math.sin(second / 9) for second in RUN], id="wanders"),
        pytest.param([150 - second / 10 for second in RUN], id="shrinks"),
        pytest.param([100 + second / 100 for second in RUN], id="less than the noise"),
    ],
)
def test_what_does_not_keep_growing_is_let_pass(values: list[float]) -> None:
    assert growing([{"memory": value} for value in values], {"memory": 4.0}) == []


def test_a_leak_is_found() -> None:
    """Some of the memory of each request that is never given back."""
    samples = [{"memory": 100 + second / 5 + 2 * math.sin(second), "threads": 7.0} for second in RUN]
    [said] = growing(samples, {"memory": 4.0, "threads": 1.0})
    assert said.startswith("memory keeps growing: 1")


def test_too_few_samples_tell_nothing() -> None:
    assert growth([float(second) for second in range(12)]) is None
    assert growing([{"other": 1.0}] * 30, {"memory": 1.0}) == []
