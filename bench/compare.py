"""Measures gateways side by side, and prints what they cost. `make bench` runs it; `bench/README.md` explains it.

Each target is started once, timed to its first answer, checked, and held still (SIGSTOP) while another is measured. A
workload is run for every target in turn, then the next; then all again, with another target first.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson
import uvloop

from app import __version__
from bench.load import measure
from bench.processes import OtherLoad, on_core
from bench.report import complaints, history, store, table
from bench.running import Failed, Running
from bench.targets import Target, chosen, others, standard
from bench.workloads import DETAILS, FIGURES, QUICK, WORKLOADS, Workload

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "bench" / "results"
REPETITIONS: Final = 2
OPEN_FILES: Final = 16_384
WARM_UP: Final = Workload("warm-up", "", QUICK, 8, 20, seconds=0.5)


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the gateway runs, and where upstream and load do. None: anywhere."""

    gateway: int | None
    rest: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    targets: Sequence[Target]
    workloads: Sequence[Workload]
    repetitions: int = REPETITIONS
    upstream: str = "simulator"
    upstream_port: int = 0


class Bench:
    """One run: the upstream, the targets that work, and the records that grow."""

    def __init__(self, plan: Plan, cores: Cores, run: Path, tell: Callable[[str], None]) -> None:
        self.plan = plan
        self._cores = cores
        self._run = run
        self._tell = tell
        self._running: dict[str, Running] = {}
        self.records: list[dict[str, Any]] = []

    def measure(self) -> dict[str, Any]:
        """The whole document, with what was measured until then if it is broken off."""
        began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with on_core(self._cores.rest), serving(self.plan.upstream, self.plan.upstream_port) as upstreams:
            try:
                self._start_all(upstreams)
                self._repeat()
                self._run_fresh(upstreams)
            except KeyboardInterrupt:
                self._tell("stopped")
            finally:
                for running in self._running.values():
                    running.stop()
        return {
            "time": began,
            "upstream": self.plan.upstream,
            "machine": machine(),
            "pinned": self._cores.gateway is not None,
            "repetitions": self.plan.repetitions,
            "targets": {name: running.facts for name, running in self._running.items()},
            "records": self.records,
        }

    def _start_all(self, upstreams: Mapping[str, str]) -> None:
        for target in self.plan.targets:
            running = Running(target, upstreams, self._run, self._cores.gateway)
            if self._started(running):
                self._running[target.name] = running

    def _started(self, running: Running) -> bool:
        try:
            running.start()
            uvloop.run(measure(running.ask(WARM_UP.model), WARM_UP))
            running.freeze()
        except Failed as error:
            self._tell(f"{running.target.name} is left out: {error}")
            running.stop()
            return False
        facts = running.facts
        self._tell(f"{running.target.name} answers after {facts['start_s']:.2f} s; stream {facts['stream']}")
        return True

    def _repeat(self) -> None:
        order = list(self._running.values())
        for repetition in range(self.plan.repetitions):
            for workload in self.plan.workloads:
                if not workload.fresh:
                    for running in order:
                        self._measured(running, workload, repetition)
            order = [*order[1:], *order[:1]]

    def _run_fresh(self, upstreams: Mapping[str, str]) -> None:
        for workload in self.plan.workloads:
            for before in self._running.values():
                if workload.fresh and before.target.command:
                    before.stop()
                    fresh = Running(before.target, upstreams, self._run, self._cores.gateway)
                    if self._started(fresh):
                        self._measured(fresh, workload, 0, idle_mb=fresh.facts["idle_rss_mb"])
                        fresh.stop()

    def _measured(self, running: Running, workload: Workload, repetition: int, idle_mb: float | None = None) -> None:
        running.thaw()
        ask = running.ask(workload.model)
        elsewhere = OtherLoad(self._cores.gateway, ask.pid)
        seen = uvloop.run(measure(ask, workload))
        share = elsewhere.share()
        running.freeze()
        record = {"target": running.target.name, "workload": workload.name, "repetition": repetition, **seen}
        record |= {"foreign": share, "connections": workload.connections, "fresh": workload.fresh}
        if idle_mb is not None:
            record["growth_mb"] = record["rss_mb"] - idle_mb
        self.records.append(record)
        self._tell(line(record))


@contextlib.contextmanager
def serving(which: str, port: int) -> Iterator[Mapping[str, str]]:
    """The upstream in a process of its own; its addresses by kind."""
    command = [sys.executable, "-m", "bench.upstream", which, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        yield orjson.loads(process.stdout.readline() if process.stdout else b"")
    finally:
        process.terminate()
        process.communicate()


def line(record: Mapping[str, Any]) -> str:
    """What is told while it runs."""
    parts = [f"  {record['target']:<16} {record['workload']:<8} {record['requests_s']:>9,.0f} requests/s"]
    for key, unit in (("cpu_ms_per_request", "CPU-ms a request"), ("cpu_us_per_event", "CPU-us an event")):
        if key in record:
            parts.append(f"{record[key]:.3f} {unit}")
    parts.append(f"load {record['load_share_of_core']:.0%} of a core")
    if record["errors"]:
        parts.append(f"errors {record['errors']}")
    return ", ".join(parts)


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((text.partition(":")[2].strip() for text in info if text.startswith("model name")), "unknown")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "tierway": __version__,
    }


def cores() -> Cores:
    """The first core for the gateway, the second for everything else, where there are two."""
    there = sorted(os.sched_getaffinity(0))
    return Cores(there[0], there[1]) if len(there) > 1 else Cores(None, None)


def open_more_files() -> None:
    """A thousand streams are more open files than many shells allow; what is started inherits this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__.split("\n\n")[0])
    found.add_argument("--only", help="targets, separated by commas; default: direct, nginx, tierway and some variants")
    found.add_argument("--workloads", help=f"of {', '.join(each.name for each in WORKLOADS)}; default: all")
    found.add_argument("--reps", type=int, default=REPETITIONS, help="repetitions; default: %(default)s")
    found.add_argument("--seconds", type=float, help="length of every measurement, instead of each workload's own")
    found.add_argument("--upstream", choices=["simulator", "mock"], default="simulator", help="default: %(default)s")
    found.add_argument("--upstream-port", type=int, default=0, help="for configurations that must name it")
    adding = found.add_argument_group("another gateway (each may be repeated)")
    adding.add_argument("--target", action="append", default=[], metavar="NAME=COMMAND", help="with {port}, {upstream}")
    adding.add_argument("--target-header", action="append", default=[], metavar="NAME=HEADER", help="what it is sent")
    adding.add_argument("--target-model", action="append", default=[], metavar="NAME=MODEL", help="with {model}")
    adding.add_argument("--target-path", action="append", default=[], metavar="NAME=PATH", help="default: /v1")
    found.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    found.add_argument("--history", metavar="NAME", help="measure nothing; a table of that target's stored runs")
    return found


def plan_of(asked: argparse.Namespace) -> Plan:
    """Raises `ValueError` for what cannot be done."""
    added = others(asked.target, asked.target_header, asked.target_model, asked.target_path)
    names = [each.name for each in WORKLOADS] if asked.workloads is None else asked.workloads.split(",")
    if unknown := set(names) - {each.name for each in WORKLOADS}:
        raise ValueError(f"no workload {', '.join(sorted(unknown))}")
    workloads = [each for each in WORKLOADS if each.name in names]
    if asked.seconds is not None:
        workloads = [replace(each, seconds=asked.seconds, ramp=min(each.ramp, asked.seconds)) for each in workloads]
    return Plan(chosen(standard(), asked.only, added), workloads, asked.reps, asked.upstream, asked.upstream_port)


def shown(document: Mapping[str, Any]) -> str:
    parts = [table(document, FIGURES), table(document, DETAILS)]
    parts += ["\n".join(f"- {each}" for each in complaints(document))]
    return "\n\n".join(part for part in parts if part)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    if asked.history:
        print(history(asked.results, asked.history))
        return 0
    try:
        plan = plan_of(asked)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    open_more_files()
    signal.signal(signal.SIGTERM, _stopped)
    where = cores()
    if where.gateway is None:
        print("one core only: nothing is pinned, and the load takes from the gateway", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="bench-") as run:
        document = Bench(plan, where, Path(run), lambda text: print(text, file=sys.stderr, flush=True)).measure()
    print(shown(document))
    print(f"\nstored in {store(document, asked.results)}", file=sys.stderr)
    return 0 if document["records"] else 1


def _stopped(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
