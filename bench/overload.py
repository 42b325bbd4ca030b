"""What becomes of a gateway at three times its capacity: how much of its peak it serves, how soon it refuses others.

`python -m bench.overload` finds the peak with a few connections that ask again when they are answered, then sends three
times as many requests a second whatever becomes of them, as people do. Twice: where the gateway's own core is the
limit, and where the upstream is, which gets so many calls at a time and no more.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from bench.interleaved import cores, open_more_files, serving
from bench.load import Ask, address, measure, quantile, request_bytes
from bench.processes import on_core
from bench.reading import Reading
from bench.running import Running
from bench.targets import MOST_CALLS, Target, tierway
from bench.workloads import PACED, QUICK, Workload

FACTOR: Final = 3.0
TICK_SECONDS: Final = 0.005
WARM_UP: Final = 4.0
"""Too much for so long before anything counts: what is measured is how it goes on, not how it begins."""
PEAK: Final = Workload("peak", "", QUICK, 32, 20)
AT_UPSTREAM: Final = 64
"""Calls at a time that the upstream gets where it is the limit."""
CONNECTIONS_MOST: Final = 6_000


@dataclass(slots=True)
class Seen:
    """Of what was sent while `counting`: seconds until each answer and each refusal, and what else came instead. `done`
    are all answers that came meanwhile, whenever they were asked for."""

    counting: bool = False
    sent: int = 0
    done: int = 0
    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


class Asker(asyncio.Protocol):
    """One connection, which is used again once it is idle."""

    def __init__(self, request: bytes, stream: bool, seen: Seen, idle: list[Asker]) -> None:
        self._request = request
        self._stream = stream
        self._seen = seen
        self._idle = idle
        self._reading: Reading | None = None
        self._transport: asyncio.Transport | None = None
        self._asked = 0.0
        self._counts = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def ask(self) -> None:
        self._asked = time.perf_counter()
        self._counts = self._seen.counting
        self._seen.sent += self._counts
        if self._transport is not None:
            self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._reading = Reading(self._stream)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        reading = self._reading
        if reading is None:
            return
        if reading.status == 0 and self._stream and data.startswith(b"HTTP/1.1 503"):
            reading = self._reading = Reading(False)  # an error is one JSON object, also where a stream was asked for
        reading.feed(data)
        if reading.over:
            self._reading = None
            self._note(reading)
            if not reading.closes:
                self._idle.append(self)

    def _note(self, reading: Reading) -> None:
        self._seen.done += reading.whole and self._seen.counting
        if not self._counts:
            return
        seconds = time.perf_counter() - self._asked
        if reading.whole:
            self._seen.served.append(seconds)
        elif reading.status == 503:
            self._seen.refused.append(seconds)
        else:
            self._seen.errors[f"status {reading.status}"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self in self._idle:
            self._idle.remove(self)
        if self._reading is not None and self._counts:
            self._seen.errors["connection lost"] += 1

    def leave(self) -> None:
        self._counts = False
        if self._transport is not None:
            self._transport.abort()


async def flood(ask: Ask, workload: Workload, rate: float, seconds: float, warm_up: float) -> dict[str, Any]:
    """So many requests a second, come what may; those sent after the warm-up count."""
    seen, idle, all_ = Seen(), list[Asker](), list[Asker]()
    request, (host, port) = request_bytes(ask, workload), address(ask.url)
    loop, begun, sent = asyncio.get_running_loop(), time.perf_counter(), 0
    async with asyncio.TaskGroup() as group:

        async def connect(asker: Asker) -> None:
            try:
                await loop.create_connection(lambda: asker, host, port)
            except OSError as error:
                seen.errors[type(error).__name__] += 1

        while (passed := time.perf_counter() - begun) < warm_up + seconds:
            seen.counting = passed >= warm_up
            while sent < rate * passed:
                sent += 1
                if idle:
                    idle.pop().ask()
                elif len(all_) < CONNECTIONS_MOST:
                    asker = Asker(request, workload.stream, seen, idle)
                    all_.append(asker)
                    asker.ask()
                    group.create_task(connect(asker))
                else:
                    seen.errors["no connection left"] += 1
            await asyncio.sleep(TICK_SECONDS)
        seen.counting = False
        await asyncio.sleep(0.5)
        for asker in all_:
            asker.leave()
    return {"rate": seen.sent / seconds, "served_s": seen.done / seconds, **_summary(seen)}


def _summary(seen: Seen) -> dict[str, Any]:
    found: dict[str, Any] = {"served": len(seen.served), "refused": len(seen.refused), "errors": dict(seen.errors)}
    for name, times in (("served", sorted(seen.served)), ("refused", sorted(seen.refused))):
        for part in (50, 99) if times else ():
            found[f"{name}_ms_p{part}"] = quantile(times, part / 100) * 1e3
    return found


@dataclass(frozen=True, slots=True)
class Scene:
    """What is the limit: a target, and the requests by which it is reached."""

    name: str
    target: Target
    workload: Workload


def scenes() -> list[Scene]:
    own = tierway("tierway")
    own = replace(own, files={"tierway.yaml": re.sub("limits: .*\n", "", own.files["tierway.yaml"])})  # the defaults
    text = own.files["tierway.yaml"].replace(f"max_concurrency: {MOST_CALLS}", f"max_concurrency: {AT_UPSTREAM}")
    narrow = replace(own, name="tierway-narrow", files={"tierway.yaml": text})
    paced = Workload("paced", "", PACED, AT_UPSTREAM, 10, stream=True, seconds=3.0, ramp=0.5)
    return [Scene("the gateway's core", own, replace(PEAK, seconds=3.0)), Scene("the upstream", narrow, paced)]


def run(scene: Scene, seconds: float, folder: Path, core: int | None) -> dict[str, Any]:
    with serving("mock", 0) as upstreams:
        running = Running(scene.target, upstreams, folder, core)
        try:
            running.start()
            ask = running.ask(scene.workload.model)
            uvloop.run(measure(ask, replace(scene.workload, seconds=1.0)))
            peak = uvloop.run(measure(ask, scene.workload))
            over = uvloop.run(flood(ask, scene.workload, FACTOR * peak["requests_s"], seconds, warm_up=WARM_UP))
        finally:
            running.stop()
    share = over["served_s"] / peak["requests_s"] if peak["requests_s"] else 0.0
    return {"limit": scene.name, "peak_s": peak["requests_s"], "share_of_peak": share, **over}


COLUMNS: Final = (
    ("limit", "{}"),
    ("peak_s", "{:,.0f}"),
    ("rate", "{:,.0f}"),
    ("served_s", "{:,.0f}"),
    ("share_of_peak", "{:.0%}"),
    ("served_ms_p50", "{:,.0f}"),
    ("served_ms_p99", "{:,.0f}"),
    ("refused_ms_p50", "{:,.0f}"),
    ("refused_ms_p99", "{:,.0f}"),
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    head = [name.replace("_", " ") for name, _ in COLUMNS]
    lines = [[form.format(row[name]) if name in row else "-" for name, form in COLUMNS] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of too much, each time; default: %(default)s")
    asked = parser.parse_args(arguments)
    open_more_files()
    where, rows = cores(), []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, on_core(where.rest):
        for scene in scenes():
            rows.append(run(scene, asked.seconds, Path(folder), where.gateway))
            print(rows[-1]["limit"], rows[-1]["errors"] or "no errors", file=sys.stderr)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
