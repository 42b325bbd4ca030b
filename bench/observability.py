"""What it costs to see what the gateway does: log lines, traces and metrics, in CPU a request.

Log lines and traces can be switched, so gateways with and without them are measured side by side, under full load and
with all features on. Metrics cannot: what one request costs there is measured on its own, as is its log line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from app.core.caller import Caller
from app.core.clock import SystemClock
from app.core.money import Tokens
from app.core.plan import Plan
from app.core.record import Attempt, Record
from app.core.steps import ADMIT, PLAN, Steps
from app.core.verdict import Verdict
from app.routing.policy import plan
from app.routing.rules import Rules
from app.telemetry.logs import configure, log_request
from app.telemetry.metrics import Metrics, exposition, new_registry
from app.telemetry.operation_metrics import OperationMetrics
from app.telemetry.spans import Writer
from app.telemetry.tracing import Finished
from bench.interleaved import REPETITIONS, Bench, cores, open_more_files
from bench.interleaved import Plan as Run
from bench.report import Document, complaints, markdown, table, value, written
from bench.routing import cpu_us, registry_of, request_of
from bench.targets import Target, tierway
from bench.workloads import FIGURES, WORKLOADS

QUIET, LOGGED, TRACED = "neither", "log lines", "log lines, traces"
GOAL_MS: Final = 0.1
TRACE_ID: Final = "0" * 31 + "1"
ROWS: Final = [figure for figure in FIGURES if figure.workload in ("small", "stream")]
LOADS: Final = [each for each in WORKLOADS if each.name in ("small", "stream")]


def variants(collector: str) -> list[Target]:
    """Gateways that differ by what they tell."""
    environments: Mapping[str, Mapping[str, str]] = {
        QUIET: {"TIERWAY_LOG_LEVEL": "critical"},
        LOGGED: {},
        TRACED: {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_TRACES_SAMPLER": "always_on",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        },
    }
    base = tierway("tierway")
    return [replace(base, name=name, environment={**base.environment, **more}) for name, more in environments.items()]


# --- traces ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Collector:
    """Takes traces and forgets them; `taken` counts the posts."""

    url: str = ""
    taken: int = 0


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            collector.taken += 1
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nobody wants to read it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Taking) as server:
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def side_by_side(seconds: float | None, repetitions: int) -> str:
    loads = LOADS if seconds is None else [replace(each, seconds=seconds) for each in LOADS]
    with collecting() as collector, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run = Run(variants(collector.url), loads, repetitions, "mock")
        document = Bench(run, cores(), Path(folder), lambda text: print(text, file=sys.stderr, flush=True)).measure()
    parts = [table(document, ROWS), *_differences(document)]
    if not collector.taken:
        parts.append("No traces came: this version sends none, so the last column is the one before it again.")
    return "\n\n".join([*parts, *(f"- {each}" for each in complaints(document))])


def _differences(document: Document) -> Iterator[str]:
    quiet = value(document, QUIET, ROWS[0])
    for name in (LOGGED, TRACED):
        told = value(document, name, ROWS[0])
        if quiet is not None and told is not None:
            yield f"A small request with {name} costs {told - quiet:+.3f} CPU-ms (goal, metrics included: {GOAL_MS})."


# --- on their own ----------------------------------------------------------------------------------------------------


def record() -> Record:
    """One finished request, as with all features on."""
    request, registry = request_of(200), registry_of(4)
    verdict = Verdict(score=0.1, confidence=0.9, task_type="code", version="1")
    made: Plan = plan(request, Caller(), registry, Rules(), verdict=verdict)
    card, tokens = made.candidates[0].card, Tokens(prompt=50, completion=100)
    attempt = Attempt(card.id, card.upstream, "ok", None, 0.01, 69_000, tokens, leased=True)
    return Record(
        *("req_bench", None, "req_bench", 0, "chat", "auto", True, 200, 1_780_000_000.0, 0.0105, 0.0005),
        key_id="key_bench",
        model=card.id,
        upstream=card.upstream,
        local=card.local,
        tier="simple",
        score=0.1,
        strategy="cost",
        reason="cheapest that can do it",
        attempts=(attempt,),
        tokens=tokens,
        cost_nano=69_000,
        first_token_seconds=0.004,
        finish="stop",
        trace_id=TRACE_ID,
        plan=made,
        steps=noted(card.id),
    )


def noted(model: str) -> Steps:
    """What such a request notes for its trace."""
    steps = Steps(TRACE_ID, None, SystemClock())
    for part in (PLAN, ADMIT):
        steps.note(part, steps.clock.monotonic(), None if part == PLAN else model)
    steps.attempt()
    return steps


def traced(seen: Record) -> Callable[[], object]:
    """Writes the spans of this record."""
    assert seen.steps is not None
    writer, finished = Writer({"service.name": "tierway"}), Finished(seen, seen.steps, seen.steps.at(seen.steps.began))
    return lambda: writer.write(finished)


def alone(repeat: int) -> str:
    """Sends the log of this process to nowhere."""
    registry = new_registry()
    metrics, operation, seen = Metrics(registry), OperationMetrics(registry), record()
    with open(os.devnull, "wb") as nowhere:
        configure("info", "json", nowhere)

        def counted() -> None:
            metrics.observe(seen)
            operation.observe(seen)

        works: dict[str, Callable[[], object]] = {
            "metrics of a request": counted,
            "log line of a request": lambda: log_request(seen, {"config_version": "1"}),
            "notes for a trace": lambda: noted(seen.model or ""),
            "spans of a request, written": traced(seen),
        }
        rows = [[name, written(cpu_us(work, repeat), 1)] for name, work in works.items()]
        rows.append(["a look at `/metrics`", written(cpu_us(lambda: exposition(registry), max(1, repeat // 50)), 1)])
    return markdown([["on its own", "CPU-us"], *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.observability", description=__doc__.split("\n\n")[0])
    parser.add_argument("--reps", type=int, default=REPETITIONS, help="repetitions (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="length of every measurement, instead of each workload's own")
    parser.add_argument("--repeat", type=int, default=2_000, help="calls in a round of what is measured on its own")
    parser.add_argument("--alone", action="store_true", help="only what is measured on its own, in seconds")
    asked = parser.parse_args(arguments)
    if not asked.alone:
        open_more_files()
        print(side_by_side(asked.seconds, asked.reps))
        print()
    print(alone(asked.repeat))


if __name__ == "__main__":
    main()
