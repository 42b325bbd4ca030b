"""`make bench`, made short: it starts a gateway, measures it beside direct calls, prints a table and stores it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from bench.compare import HISTORY, REPORT_REPETITIONS, RESULTS, main, parser, plan_of
from bench.interleaved import ROOT
from bench.workloads import WORKLOADS


def test_a_short_run_measures_a_gateway_beside_direct_calls(tmp_path: Path) -> None:
    """The benchmark must not rot between the times somebody looks at it; with all features on means with all."""
    asked = ["--only", "direct,tierway", "--workloads", "small,paced", "--seconds", "0.2", "--reps", "1"]
    kept = ["--results", str(tmp_path), "--history-file", str(tmp_path / "runs.jsonl"), "--note", "a change"]
    command = [sys.executable, "-m", "bench.compare", *asked, *kept]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stderr
    assert "| direct | tierway | goal: first, then |" in done.stdout, done.stderr
    [path] = tmp_path.glob("*.json")
    document = orjson.loads(path.read_bytes())
    assert [(record["target"], record["workload"]) for record in document["records"]] == [
        ("direct", "small"),
        ("tierway", "small"),
        ("direct", "paced"),
        ("tierway", "paced"),
    ]
    facts = document["targets"]["tierway"]
    assert facts["wrong_key_status"] == 401 and facts["idle_alone_mb"] < facts["idle_rss_mb"]
    said = facts["said"]
    assert said["x-tierway-model"] == "bench/bench-quick" and said["x-tierway-tier"], "it was not classified"
    assert float(said["x-tierway-cost-usd"]) > 0 and said["x-ratelimit-limit-requests"]
    small = document["records"][1]
    assert small["requests"] > 0 and small["errors"] == {}
    assert 0 < small["alone_ms_per_request"] <= small["cpu_ms_per_request"]
    [line] = (tmp_path / "runs.jsonl").read_bytes().splitlines()
    assert orjson.loads(line)["note"] == "a change" and document["note"] == "a change"


def test_all_is_measured_unless_told_otherwise() -> None:
    plan = plan_of(parser().parse_args([]))
    assert tuple(plan.workloads) == WORKLOADS
    assert (plan.upstream, plan.repetitions) == ("simulator", 2)


def test_a_report_is_measured_over_what_is_never_the_limit() -> None:
    plan = plan_of(parser().parse_args(["--report"]))
    assert (plan.upstream, plan.repetitions) == ("mock", REPORT_REPETITIONS)
    assert plan_of(parser().parse_args(["--report", "--reps", "1"])).repetitions == 1


def test_peers_that_are_installed_are_measured_too(tmp_path: Path) -> None:
    (tmp_path / "litellm").mkdir()
    names = [target.name for target in plan_of(parser().parse_args(["--peers", str(tmp_path)])).targets]
    assert names[0] == "direct" and "litellm" in names and "portkey" not in names


def test_shorter_measurements_have_shorter_ramps() -> None:
    plan = plan_of(parser().parse_args(["--seconds", "0.5", "--workloads", "paced"]))
    assert [(each.seconds, each.ramp) for each in plan.workloads] == [(0.5, 0.5)]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--workloads", "smal"],
        ["--only", "tirway"],
        ["--target", "x=run"],
        ["--against", "1999"],
        ["--report", "LAST"],
    ],
)
def test_what_is_misspelt_ends_with_a_word(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured: a run takes minutes."""
    nowhere = ["--results", str(tmp_path), "--history-file", str(tmp_path / "none")]
    assert main([*wrong, *nowhere]) == 2
    assert capsys.readouterr().err.strip()


def test_stored_runs_are_shown_and_compared_without_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for time, cpu in (("2026-11-20T00:00:00Z", 0.3), ("2026-11-21T00:00:00Z", 0.6)):
        record = {"target": "tierway", "workload": "small", "errors": {}, "cpu_ms_per_request": cpu}
        machine = {"cpu": "one", "cores": 2, "system": "Linux", "python": "3.11", "tierway": "0.1.0"}
        document = {"time": time, "commit": "abc", "note": "", "upstream": "mock", "repetitions": 1, "machine": machine}
        whole = {**document, "targets": {"tierway": {}}, "records": [record], "command": "again"}
        (tmp_path / f"{time[:10]}.json").write_bytes(orjson.dumps(whole))
    where = ["--results", str(tmp_path), "--history-file", str(tmp_path / "none")]
    assert main(["--history", "tierway", *where]) == 0
    assert capsys.readouterr().out.startswith("| time | commit | note | upstream |")
    assert main(["--report", "LAST", "--against", "LAST", *where]) == 0
    said = capsys.readouterr().out
    assert "| CPU-ms per small request, 32 connections | **0.60** |" in said and "To repeat it: `again`" in said
    assert "against 2026-11-20T00:00:00Z" in said and "| 0.30 | 0.60 | **+100%** |" in said


def test_results_stay_out_of_the_repository_and_figures_with_a_note_in_it() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    assert f"{RESULTS.relative_to(ROOT)}/" in ignored
    assert not any(str(HISTORY.relative_to(ROOT)).startswith(each) for each in ignored)
