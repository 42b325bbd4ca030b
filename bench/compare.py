"""Measures gateways side by side, and prints what they cost. `make bench` runs it; `bench/README.md` explains it.

What is measured and how is the business of `interleaved`; this is the command: what was asked for, and what is shown of
this run and of earlier ones.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from bench.history import LAST, differences, documents, history, keep, past, picked, store, summary
from bench.interleaved import REPETITIONS, ROOT, Bench, Plan, cores, open_more_files
from bench.peers import PEERS, installed
from bench.report import Document, complaints, readme, table
from bench.targets import chosen, others, standard
from bench.workloads import DETAILS, FIGURES, WORKLOADS

RESULTS: Final = ROOT / "bench" / "results"
HISTORY: Final = ROOT / "bench" / "history" / "runs.jsonl"
REPORT_REPETITIONS: Final = 5
MEASURE: Final = ""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__.split("\n\n")[0])
    names = ", ".join(each.name for each in WORKLOADS)
    found.add_argument(
        "--only", help="targets, separated by commas; default: direct, nginx, tierway, tierway-plain, peers"
    )
    found.add_argument("--workloads", help=f"of {names}; default: all")
    found.add_argument(
        "--reps", type=int, help=f"repetitions; default: {REPETITIONS}, of a report {REPORT_REPETITIONS}"
    )
    found.add_argument("--seconds", type=float, help="length of every measurement, instead of each workload's own")
    found.add_argument("--upstream", choices=["simulator", "mock"], help="default: simulator, of a report mock")
    found.add_argument("--upstream-port", type=int, default=0, help="for configurations that must name it")
    showing = found.add_argument_group("what is shown and kept")
    showing.add_argument(
        "--against", metavar="RUN", help=f"also how it differs from {LAST}, or from that time or commit"
    )
    showing.add_argument(
        "--report",
        metavar="RUN",
        nargs="?",
        const=MEASURE,
        help="Markdown for the README; with RUN measure nothing, and take that stored run",
    )
    showing.add_argument("--history", metavar="TARGET", help="measure nothing; a row for each run that has that target")
    showing.add_argument(
        "--note", default="", help=f"what was changed; keeps the figures in {HISTORY.relative_to(ROOT)}"
    )
    showing.add_argument("--results", type=Path, default=RESULTS, help="folder of the whole runs")
    showing.add_argument("--history-file", type=Path, default=HISTORY, help="file of the figures that are kept")
    adding = found.add_argument_group("other gateways")
    peers = os.environ.get("BENCH_PEERS")
    adding.add_argument(
        "--peers",
        type=Path,
        default=None if peers is None else Path(peers),
        help=f"folder with those that are installed, of {', '.join(PEERS)}; default: $BENCH_PEERS",
    )
    adding.add_argument("--target", action="append", default=[], metavar="NAME=COMMAND", help="with {port}, {upstream}")
    adding.add_argument("--target-header", action="append", default=[], metavar="NAME=HEADER", help="what it is sent")
    adding.add_argument("--target-model", action="append", default=[], metavar="NAME=MODEL", help="with {model}")
    adding.add_argument("--target-path", action="append", default=[], metavar="NAME=PATH", help="default: /v1")
    return found


def plan_of(asked: argparse.Namespace) -> Plan:
    """Raises `ValueError` for what cannot be done."""
    named = others(asked.target, asked.target_header, asked.target_model, asked.target_path)
    targets = chosen(standard(), asked.only, [*installed(asked.peers), *named])
    names = [each.name for each in WORKLOADS] if asked.workloads is None else asked.workloads.split(",")
    if unknown := set(names) - {each.name for each in WORKLOADS}:
        raise ValueError(f"no workload {', '.join(sorted(unknown))}")
    workloads = [each for each in WORKLOADS if each.name in names]
    if asked.seconds is not None:
        workloads = [replace(each, seconds=asked.seconds, ramp=min(each.ramp, asked.seconds)) for each in workloads]
    reporting = asked.report is not None
    return Plan(
        targets,
        workloads,
        asked.reps or (REPORT_REPETITIONS if reporting else REPETITIONS),
        asked.upstream or ("mock" if reporting else "simulator"),
        asked.upstream_port,
        asked.note,
    )


def shown(document: Document) -> str:
    parts = [table(document, FIGURES, goals=True), table(document, DETAILS), doubts(document)]
    return "\n\n".join(part for part in parts if part)


def doubts(document: Document) -> str:
    return "\n".join(f"- {each}" for each in complaints(document))


def run(plan: Plan) -> dict[str, Any]:
    open_more_files()
    signal.signal(signal.SIGTERM, _stopped)
    where = cores()
    if where.gateway is None:
        print("one core only: nothing is pinned, and the load takes from the gateway", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return Bench(plan, where, Path(folder), lambda text: print(text, file=sys.stderr, flush=True)).measure()


def _stopped(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def from_stored(asked: argparse.Namespace) -> int:
    """What needs no measurement. Raises `ValueError` for a run that is not there."""
    runs = past(asked.results, asked.history_file)
    if asked.history:
        print(history(runs, asked.history))
        return 0
    document = picked(documents(asked.results), asked.report)
    print(readme(document, document.get("command", "make bench")))
    if asked.against:
        earlier = [each for each in runs if each["time"] < document["time"]]
        print(f"\n{differences(picked(earlier, asked.against), summary(document))}")
    return 0


def measuring(asked: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Raises `ValueError` for what cannot be done, before anything is measured."""
    plan = plan_of(asked)
    before = picked(past(asked.results, asked.history_file), asked.against) if asked.against else None
    document = run(plan) | {"command": shlex.join(["python", "-m", "bench.compare", *arguments])}
    print(shown(document) if asked.report is None else readme(document, document["command"]))
    if before is not None:
        print(f"\n{differences(before, summary(document))}")
    if asked.report is not None:
        print(doubts(document), file=sys.stderr)
    print(f"\nstored in {store(document, asked.results)}", file=sys.stderr)
    if asked.note:
        keep(document, asked.history_file)
    return 0 if document["records"] else 1


def main(arguments: Sequence[str] | None = None) -> int:
    said = sys.argv[1:] if arguments is None else arguments
    asked = parser().parse_args(said)
    try:
        return from_stored(asked) if asked.history or asked.report else measuring(asked, said)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
