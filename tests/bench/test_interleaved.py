"""One run of the benchmark: nobody costs the others their figures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.compare import shown
from bench.interleaved import ROOT, Bench, Cores, Plan, commit, cores, line
from bench.targets import DIRECT, Target
from bench.workloads import SLOW, Workload


def test_what_works_is_measured_and_what_does_not_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One gateway that does not start must not cost the others their figures; memory has a fresh process."""
    monkeypatch.setattr("bench.running.SETTLE_SECONDS", 0.05)
    server = (sys.executable, "-m", "bench.upstream", "mock", "--port", "{port}")
    good = Target("good", server, environment={"PYTHONPATH": str(ROOT)})
    bad = Target("bad", (sys.executable, "-c", "raise SystemExit('no licence')", "{port}"))
    open_streams = Workload("memory", "", SLOW, 3, 9, stream=True, seconds=0.2, fresh=True)
    told: list[str] = []
    plan = Plan([Target(DIRECT), bad, good], [open_streams], upstream="mock")
    document = Bench(plan, Cores(None, None), tmp_path, told.append).measure()
    assert list(document["targets"]) == [DIRECT, "good"]
    assert [line for line in told if "bad is left out" in line and "no licence" in line]
    [record] = document["records"]
    assert (record["target"], record["streams_open"]) == ("good", 3)
    assert record["growth_mb"] == record["growth_alone_mb"], "it has no store"
    assert "good" in shown(document)


def test_the_gateway_has_a_core_of_its_own_where_there_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 9})
    assert cores() == Cores(3, 5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert cores() == Cores(None, None)


def test_progress_says_what_is_measured_and_what_went_wrong() -> None:
    record = {"target": "it", "workload": "small", "requests_s": 12.0, "load_share_of_core": 0.5, "errors": {"x": 1}}
    assert line({**record, "cpu_ms_per_request": 0.3}).split(", ")[1:] == [
        "0.300 CPU-ms a request",
        "load 50% of a core",
        "errors {'x': 1}",
    ]


def test_a_run_outside_a_checkout_has_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A copy of the code without git must be measurable all the same."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    assert commit() is None
