"""A change shows its effect beside earlier runs, and noise does not look like one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.history import LAST, differences, documents, history, keep, past, picked, store, summary


def document(time: str, *cpu: float, **more: Any) -> dict[str, Any]:
    records = [
        {"target": "tierway", "workload": "small", "errors": {}, "cpu_ms_per_request": each, "requests_s": 1 / each}
        for each in cpu
    ]
    about = {"commit": "abc", "note": "", "upstream": "mock", "repetitions": len(cpu), "machine": {"cpu": "one"}}
    return {"time": time, **about, "targets": {"tierway": {}}, "records": records, **more}


def test_stored_runs_make_a_history(tmp_path: Path) -> None:
    """A change that makes requests dearer shows beside the runs before it; a run that is also kept shows once."""
    kept = tmp_path / "history" / "runs.jsonl"
    later, earlier = document("2026-11-21T00:00:00Z", 0.4, note="why"), document("2026-11-20T00:00:00Z", 0.3)
    for each in (later, earlier, document("2026-11-22T00:00:00Z", targets={"direct": {}}, records=[])):
        store(each, tmp_path)
    keep(later, kept)
    keep(document("2026-11-19T00:00:00Z", 0.2), kept)
    rows = history(past(tmp_path, kept), "tierway").splitlines()
    assert [row.split(" | ")[:5] for row in rows[2:]] == [
        ["| 2026-11-19T00:00:00Z", "abc", "-", "mock", "0.20"],
        ["| 2026-11-20T00:00:00Z", "abc", "-", "mock", "0.30"],
        ["| 2026-11-21T00:00:00Z", "abc", "why", "mock", "0.40"],
    ]
    assert [each["time"][:10] for each in documents(tmp_path)] == ["2026-11-20", "2026-11-21", "2026-11-22"]


def test_nothing_stored_is_no_history(tmp_path: Path) -> None:
    assert past(tmp_path / "none", tmp_path / "neither") == []


def test_a_run_is_picked_by_when_or_what_it_was() -> None:
    runs = [summary(document("2026-11-20T00:00:00Z", 0.3)), summary(document("2026-11-21T00:00:00Z", 0.3, commit="f1"))]
    assert picked(runs, LAST) is picked(runs, "2026-11-21") is picked(runs, "f1") is runs[1]
    assert picked(runs, "2026-11-20") is picked(runs, "abc") is runs[0]
    for which in ("2027", "None"):
        with pytest.raises(ValueError, match=f"no run {which} is stored"):
            picked(runs, which)
    with pytest.raises(ValueError, match="no run is stored yet"):
        picked([], LAST)


def test_what_is_beyond_the_noise_stands_out() -> None:
    """Two runs whose repetitions overlap differ by chance, as far as anybody knows."""
    before = summary(document("2026-11-20T00:00:00Z", 0.30, 0.32, 0.36))
    clear = differences(before, summary(document("2026-11-21T00:00:00Z", 0.20, 0.21, 0.22)))
    assert "| tierway, CPU-ms per small request, 32 connections | 0.32 | 0.21 | **-34%** |" in clear
    noise = differences(before, summary(document("2026-11-21T00:00:00Z", 0.33, 0.37, 0.38)))
    assert "| 0.32 | 0.37 | +16% |" in noise
    assert "**" not in differences(before, before)


def test_what_else_changed_is_said() -> None:
    before = summary(document("2026-11-20T00:00:00Z", 0.3, note="before it", upstream="simulator"))
    said = differences(before, summary(document("2026-11-21T00:00:00Z", 0.3))).splitlines()[0]
    assert said.startswith("against 2026-11-20T00:00:00Z (abc); note: before it; another upstream: simulator.")
