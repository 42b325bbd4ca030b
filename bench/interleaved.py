"""One run of the benchmark: starts each target once, holds it still (SIGSTOP) while another is measured, and runs each
workload for all in turn, then all again with another first. What spoils a process for others has one of its own.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
import uvloop

from app import __version__
from bench.load import measure
from bench.processes import OtherLoad, on_core
from bench.running import Failed, Running
from bench.targets import Target
from bench.workloads import EVENT, QUICK, REQUEST, Workload

ROOT: Final = Path(__file__).resolve().parents[1]
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
    note: str = ""


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
            "commit": commit(),
            "note": self.plan.note,
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

    def _started(self, running: Running, *, warm: bool = True) -> bool:
        """`warm`: it is asked for half a second, which lets its heap grow, and its store."""
        try:
            running.start()
            if warm:
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
                    if self._started(fresh, warm=False):
                        self._measured(fresh, workload, 0)
                        fresh.stop()

    def _measured(self, running: Running, workload: Workload, repetition: int) -> None:
        running.thaw()
        ask = running.ask(workload.model)
        elsewhere = OtherLoad(self._cores.gateway, ask.pid)
        seen = uvloop.run(measure(ask, workload))
        share = elsewhere.share()
        running.freeze()
        record = {"target": running.target.name, "workload": workload.name, "repetition": repetition, **seen}
        record |= {"foreign": share, "connections": workload.connections, "fresh": workload.fresh}
        if workload.fresh:
            record["growth_mb"] = record["rss_mb"] - running.facts["idle_rss_mb"]
            record["growth_alone_mb"] = record["rss_alone_mb"] - running.facts["idle_alone_mb"]
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
    for key, unit in ((REQUEST, "CPU-ms a request"), (EVENT, "CPU-us an event")):
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


def commit() -> str | None:
    """What the code is, with a + where it was changed since; None outside a checkout."""
    asked = ("git", "describe", "--always", "--dirty=+", "--exclude=*")
    try:
        return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def cores() -> Cores:
    """The first core for the gateway, the second for everything else, where there are two."""
    there = sorted(os.sched_getaffinity(0))
    return Cores(there[0], there[1]) if len(there) > 1 else Cores(None, None)


def open_more_files() -> None:
    """A thousand streams are more open files than many shells allow; what is started inherits this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
