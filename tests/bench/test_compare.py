"""`make bench`, made short: it starts a gateway, measures it beside direct calls, prints a table and stores it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from bench.compare import RESULTS, Bench, Cores, Plan, cores, line, main, parser, plan_of, shown
from bench.targets import DIRECT, Target
from bench.workloads import SLOW, WORKLOADS, Workload

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_run_measures_a_gateway_beside_direct_calls(tmp_path: Path) -> None:
    """The benchmark must not rot between the times somebody looks at it."""
    asked = ["--only", "direct,tierway-keys", "--workloads", "small,paced", "--seconds", "0.2", "--reps", "1"]
    command = [sys.executable, "-m", "bench.compare", *asked, "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stderr
    assert "| direct | tierway-keys |" in done.stdout, done.stderr
    [path] = tmp_path.glob("*.json")
    document = orjson.loads(path.read_bytes())
    assert [(record["target"], record["workload"]) for record in document["records"]] == [
        ("direct", "small"),
        ("tierway-keys", "small"),
        ("direct", "paced"),
        ("tierway-keys", "paced"),
    ]
    assert document["targets"]["tierway-keys"]["wrong_key_status"] == 401
    small = document["records"][1]
    assert small["requests"] > 0 and small["cpu_ms_per_request"] > 0 and small["errors"] == {}


def test_what_works_is_measured_and_what_does_not_is_left_out(tmp_path: Path) -> None:
    """One gateway that does not start must not cost the others their figures; memory has a fresh process."""
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
    assert "growth_mb" in record and "good" in shown(document)


def test_all_is_measured_unless_told_otherwise() -> None:
    plan = plan_of(parser().parse_args([]))
    assert tuple(plan.workloads) == WORKLOADS
    assert (plan.upstream, plan.repetitions) == ("simulator", 2)


def test_shorter_measurements_have_shorter_ramps() -> None:
    plan = plan_of(parser().parse_args(["--seconds", "0.5", "--workloads", "paced"]))
    assert [(each.seconds, each.ramp) for each in plan.workloads] == [(0.5, 0.5)]


@pytest.mark.parametrize("wrong", [["--workloads", "smal"], ["--only", "tirway"], ["--target", "x=run"]])
def test_what_is_misspelt_ends_with_a_word(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(wrong) == 2
    assert capsys.readouterr().err.strip()


def test_the_history_of_a_target_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--history", "tierway", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("| time | upstream |")


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


def test_results_stay_out_of_the_repository() -> None:
    assert f"{RESULTS.relative_to(ROOT)}/" in (ROOT / ".gitignore").read_text().split()
