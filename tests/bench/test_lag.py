from __future__ import annotations

import math

import pytest

from bench.lag import quantile, read

METRICS = """# HELP tierway_event_loop_lag_seconds How much later than asked the event loop woke up.
# TYPE tierway_event_loop_lag_seconds histogram
tierway_event_loop_lag_seconds_bucket{le="0.01"} 90.0
tierway_event_loop_lag_seconds_bucket{le="0.1"} 99.0
tierway_event_loop_lag_seconds_bucket{le="+Inf"} 100.0
tierway_event_loop_lag_seconds_count 100.0
tierway_event_loop_lag_seconds_sum 1.5
# TYPE tierway_tasks gauge
tierway_tasks 3.0
"""


def test_reads_the_buckets_and_nothing_else() -> None:
    assert read(METRICS) == {0.01: 90.0, 0.1: 99.0, math.inf: 100.0}


@pytest.mark.parametrize(("share", "bound"), [(0.5, 0.01), (0.9, 0.01), (0.99, 0.1), (1.0, math.inf)])
def test_the_bound_holds_the_share(share: float, bound: float) -> None:
    """A bound too low would say that streams hold while one in a hundred stumbles."""
    assert quantile({}, read(METRICS), share) == bound


def test_only_what_came_between_counts() -> None:
    """The start of a process, which is slow, must not hide or darken what a run shows."""
    before = {0.01: 0.0, 0.1: 9.0, math.inf: 10.0}
    assert quantile(before, read(METRICS), 0.99) == 0.01
    assert quantile(read(METRICS), read(METRICS), 0.99) is None
