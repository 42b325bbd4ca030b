"""What seeing costs is measured on what the gateway really writes; how little, no test says."""

from __future__ import annotations

import subprocess
import sys

import httpx2
import pytest

from app.config.load import load
from bench.interleaved import ROOT
from bench.observability import LOADS, LOGGED, QUIET, TRACED, collecting, record, side_by_side, variants
from bench.targets import Target


def test_what_a_request_tells_is_measured() -> None:
    """In a process of its own, because it sends the log of its process to nowhere."""
    command = [sys.executable, "-m", "bench.observability", "--alone", "--repeat", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stderr
    assert "| metrics of a request |" in done.stdout and "| log line of a request |" in done.stdout


def test_the_variants_are_measured_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock stands for each gateway: what it takes to start a real one, the comparison's own test shows."""
    server = (sys.executable, "-m", "bench.upstream", "mock", "--port", "{port}")
    made = [Target(name, server, environment={"PYTHONPATH": str(ROOT)}) for name in (QUIET, TRACED)]
    monkeypatch.setattr("bench.observability.variants", lambda collector: made)
    monkeypatch.setattr("bench.observability.LOADS", LOADS[:1])
    monkeypatch.setattr("bench.running.SETTLE_SECONDS", 0.05)
    said = side_by_side(0.2, 1)
    assert f"|  | {QUIET} | {TRACED} |" in said
    assert said.count("A small request with") == 1 and "No traces came" in said


def test_the_variants_differ_by_what_they_tell() -> None:
    environments = {target.name: target.environment for target in variants("http://127.0.0.1:1")}
    assert environments[QUIET]["TIERWAY_LOG_LEVEL"] == "critical"
    assert "TIERWAY_LOG_LEVEL" not in environments[LOGGED]
    assert environments[TRACED]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:1"
    for environment in environments.values():
        load({**environment, "TIERWAY_PORT": "1"})


def test_the_collector_counts_what_it_takes() -> None:
    with collecting() as collector, httpx2.Client(trust_env=False) as client:
        assert client.post(f"{collector.url}/v1/traces", content=b"spans").status_code == 200
        assert collector.taken == 1


def test_the_record_is_one_with_all_features_on() -> None:
    made = record()
    assert made.plan is not None and made.plan.verdict is not None
    assert made.key_id and made.cost_nano and made.tokens
