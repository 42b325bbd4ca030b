"""The flood must be what it says: so many requests a second, and every refusal counted as one."""

from __future__ import annotations

from dataclasses import replace

from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.server import simulate
from bench.load import Ask
from bench.overload import AT_UPSTREAM, COLUMNS, PEAK, flood, scenes, table
from bench.workloads import QUICK

SMALL = replace(PEAK, tokens=2)


async def test_answers_and_refusals_are_told_apart() -> None:
    async with simulate("openai", Behaviour((SimModel(QUICK),))) as sim:
        sim.fault_next("unavailable", times=10)
        ask = Ask(f"{sim.base_url}/v1", QUICK)
        seen = await flood(ask, SMALL, rate=100, seconds=0.4, warm_up=0.0)
    assert seen["refused"] == 10 and seen["served"] >= 1 and seen["errors"] == {}
    assert {"served_ms_p50", "refused_ms_p99"} <= set(seen)


async def test_a_stream_that_is_refused_is_no_stream() -> None:
    """Its error is one object, and its connection is used again."""
    async with simulate("openai", Behaviour((SimModel(QUICK),))) as sim:
        sim.fault_next("unavailable", times=5)
        ask = Ask(f"{sim.base_url}/v1", QUICK)
        seen = await flood(ask, replace(SMALL, stream=True), rate=50, seconds=0.4, warm_up=0.0)
    assert seen["refused"] == 5 and seen["served"] >= 1 and seen["errors"] == {}


async def test_what_breaks_is_neither() -> None:
    async with simulate("openai", Behaviour((SimModel(QUICK),))) as sim:
        sim.fault_always("cut_reset")
        seen = await flood(Ask(f"{sim.base_url}/v1", QUICK), SMALL, rate=50, seconds=0.2, warm_up=0.0)
    assert seen["served"] == seen["refused"] == 0 and set(seen["errors"]) == {"connection lost"}


def test_the_upstream_is_the_limit_of_the_second_scene() -> None:
    own, narrow = scenes()
    assert f"max_concurrency: {AT_UPSTREAM}" in narrow.target.files["tierway.yaml"]
    assert own.target.files != narrow.target.files


def test_what_was_not_seen_is_left_out_of_the_table() -> None:
    line = table([{"limit": "x", "share_of_peak": 0.825}]).splitlines()[-1]
    assert line.count("|") == len(COLUMNS) + 1 and "| 82% |" in line and line.endswith("| - |")
