"""Traces are on where OpenTelemetry's variables say so, of those requests that are to be traced, each told once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.core.clock import ManualClock
from app.telemetry.traceparent import Trace
from app.telemetry.tracing import CAPTURE, CONTENT_CHARS, Finished, Tracing, open_tracing, wanted
from tests.flows.service import logged
from tests.telemetry.test_genai import CALLER, TRACE, told

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
HERE = {ENDPOINT: "http://127.0.0.1:1"}


class Sender:
    def __init__(self, sampled: bool = True) -> None:
        self.sampled, self.closed = sampled, False
        self.asked: list[tuple[str, Trace | None]] = []
        self.offered: list[Finished] = []

    def sample(self, trace_id: str, parent: Trace | None) -> bool:
        self.asked.append((trace_id, parent))
        return self.sampled

    def offer(self, finished: Finished) -> None:
        self.offered.append(finished)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        (HERE, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, True),
        ({ENDPOINT: " "}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({**HERE, "OTEL_TRACES_EXPORTER": "console,OTLP"}, True),
        ({**HERE, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**HERE, "OTEL_TRACES_EXPORTER": "zipkin"}, False),
        ({**HERE, "OTEL_SDK_DISABLED": "True"}, False),
        ({**HERE, "OTEL_SDK_DISABLED": "no"}, True),
    ],
)
def test_the_environment_switches_them_on(environ: dict[str, str], on: bool) -> None:
    assert wanted(environ) is on


def test_a_request_goes_on_in_its_callers_trace() -> None:
    sender = Sender()
    tracing = Tracing(sender, ManualClock(), content=7)
    header, steps = tracing.begin(f"00-{TRACE}-{CALLER}-01")
    assert steps is not None and (steps.trace_id, steps.parent_id, steps.header) == (TRACE, CALLER, header)
    assert steps.content is not None and steps.content.most == 7
    assert sender.asked == [(TRACE, Trace(TRACE, CALLER, sampled=True))]
    header, steps = tracing.begin("nonsense")
    assert steps is not None and steps.parent_id is None and steps.trace_id not in (TRACE, "0" * 32)


def test_what_is_not_traced_has_its_ids_all_the_same() -> None:
    """They stand in the log, and upstreams are told not to trace it either."""
    header, steps = Tracing(Sender(sampled=False), ManualClock()).begin(f"00-{TRACE}-{CALLER}-01")
    assert steps is None and header.startswith(f"00-{TRACE}-") and header.endswith("-00") and CALLER not in header


def test_a_request_is_told_once_whatever_ends_last() -> None:
    """Its record and its payment end in any order."""
    sender = Sender()
    tracing = Tracing(sender, ManualClock())
    plain, _ = told()
    tracing.observe(plain)
    assert len(sender.offered) == 1
    late, steps = told()
    steps.owing = True
    tracing.observe(late)
    assert len(sender.offered) == 1
    tracing.paid(steps)
    assert [each.record for each in sender.offered] == [plain, late]
    early, steps = told()
    steps.owing = True
    tracing.paid(steps)
    tracing.observe(early)
    assert [each.record for each in sender.offered] == [plain, late, early]
    tracing.observe(told(steps=None)[0])
    assert len(sender.offered) == 3


async def test_a_stop_closes_the_sender() -> None:
    sender = Sender()
    await Tracing(sender, ManualClock()).aclose()
    assert sender.closed


def opened(environ: dict[str, str]) -> tuple[Tracing | None, bytes]:
    with logged() as log:
        return open_tracing(environ, ManualClock(), lambda outcome, count: None), log.getvalue()


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({**HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, b"http/protobuf only"),
        ({**HERE, "OTEL_TRACES_EXPORTER": "zipkin"}, b"must be otlp or none"),
    ],
)
def test_what_cannot_be_is_said_and_keeps_nobody(environ: dict[str, str], why: bytes) -> None:
    tracing, log = opened(environ)
    assert tracing is None and why in log


@pytest.mark.parametrize("broken", [True, False])
def test_a_missing_extra_or_a_bad_variable_is_said(monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    """Variables that a cluster sets for every program must not keep the gateway from starting."""

    def failing(name: str) -> Any:
        if broken:
            raise ValueError("must be a number")
        raise ModuleNotFoundError("No module named 'opentelemetry'", name="opentelemetry.sdk")

    monkeypatch.setattr("app.telemetry.tracing.importlib.import_module", failing)
    tracing, log = opened(HERE)
    assert tracing is None and (b"must be a number" if broken else b"pip install 'tierway[otel]'") in log


async def test_texts_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HERE.items():
        monkeypatch.setenv(name, value)
    for said, content in (("true", CONTENT_CHARS), ("SPAN_ONLY", CONTENT_CHARS), ("no_content", 0), ("", 0)):
        tracing, _ = opened({**HERE, CAPTURE: said})
        assert tracing is not None and tracing.content == content
        await tracing.aclose()


def test_off_no_sdk_is_imported() -> None:
    """It takes megabytes and a good part of a second of every start. (FastAPI looks at its interface by itself.)"""
    ours = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "app.telemetry.otlp")
    code = f"import sys, app.main; sys.exit(any(name.startswith({ours!r}) for name in sys.modules))"
    environ = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environ, timeout=50, check=False)
    assert done.returncode == 0
