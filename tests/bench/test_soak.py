"""A soak of seconds: it samples what it says, sees what is wrong, and leaves a chart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

from bench.interleaved import ROOT
from bench.soak import SLACKS, chart, shown, verdict


def seen(**more: Any) -> dict[str, Any]:
    sample = dict.fromkeys(SLACKS, 1.0)
    samples = [{"seconds": float(second), **sample} for second in range(30)]
    return {
        "time": "2026-11-20T12:00:00Z",
        "samples": samples,
        "rest": dict.fromkeys(SLACKS, 0.0),
        "keys": {"lease": 3},
        "key_faults": [],
        "lag_seconds": 0.005,
        "requests": 1_000,
        "left": 300,
        "failed": 0,
        "outcomes": {"small ok": 700},
        **more,
    }


def test_a_short_soak_samples_a_gateway_under_a_load_that_leaves(tmp_path: Path) -> None:
    """It must work on the day somebody runs it for ten minutes."""
    command = [sys.executable, "-m", "bench.soak", "--minutes", "0.05", "--clients", "8", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False)
    [path] = tmp_path.glob("*.json")
    document = orjson.loads(path.read_bytes())
    assert done.returncode == (1 if document["verdict"] else 0), done.stderr
    assert document["requests"] > 0 and sum(document["outcomes"].values()) == document["requests"]
    assert len(document["samples"]) > 1
    for name in ("memory, MB", "descriptors", "threads", "requests in flight", "open leases"):
        assert all(name in sample for sample in document["samples"]), name
    assert document["lag_seconds"] > 0
    assert document["samples"][-1]["the store's keys"] > 0 and document["keys"]["lease"] > 0
    assert path.with_suffix(".svg").read_text().startswith("<svg")
    assert "| memory, MB |" in done.stdout


def test_all_well_is_no_complaint() -> None:
    assert verdict(seen()) == []
    assert shown({**seen(), "verdict": []}).endswith("Nothing keeps growing.")


def test_whatever_is_wrong_is_said() -> None:
    samples = [{**sample, "descriptors": 10.0 * at} for at, sample in enumerate(seen()["samples"])]
    rest = {**dict.fromkeys(SLACKS, 0.0), "open leases": 2.0}
    wrong = verdict(
        seen(samples=samples, rest=rest, key_faults=["x belongs to no partition"], failed=20, lag_seconds=0.25)
    )
    assert [each.split(":")[0] for each in wrong] == [
        "descriptors keeps growing",
        "open leases does not come to rest",
        "x belongs to no partition",
        "the event loop is late",
        "20 of 1000 requests failed",
    ]


def test_the_chart_shows_every_series() -> None:
    made = chart(seen())
    assert all(name in made for name in SLACKS) and "30% of them left" in made
