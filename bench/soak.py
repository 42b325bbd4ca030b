"""A long run under a mixed load of which a share leaves: what of the gateway keeps growing?

`python -m bench.soak --minutes 10` samples memory, descriptors, threads, upstream connections and the store's keys,
then waits until all is at rest. It stores the samples as JSON with a chart beside it, and ends with 1 where something
keeps growing, does not come to rest, or lies in the store without a declared lifetime.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import orjson
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from app.store import folder as folders
from app.store import layout
from app.store.address import Address
from app.store.client import Store
from bench import lag
from bench.chart import svg
from bench.growth import growing
from bench.interleaved import ROOT, commit, cores, machine, open_more_files, serving
from bench.mixture import LEFT, OK, Mixture
from bench.processes import connections_to, descriptors, on_core, rss, threads, tree, without_stores
from bench.running import Running
from bench.targets import tierway
from bench.workloads import QUICK

RESULTS: Final = ROOT / "bench" / "results" / "soak"
SAMPLES: Final = 300
ABORTS: Final = 0.3
REST_SECONDS: Final = 30.0
FAILED_SHARE: Final = 0.001
AT_ONCE: Final = 500
LAG_SHARE: Final = 0.99
LAG_SECONDS: Final = 0.1

SLACKS: Final[Mapping[str, float]] = {
    "memory, MB": 4.0,
    "descriptors": 8.0,
    "threads": 1.0,
    "upstream connections": 32.0,
    "requests in flight": 32.0,
    "streams open": 32.0,
    "open leases": 32.0,
    "tasks": 32.0,
}
"""What may not keep growing, each by how much it may wander: what goes with the requests, by as many as ask. Keys of
the store are judged by their lifetimes instead: what is kept for a week grows for a week."""
GAUGES: Final[Mapping[str, str]] = {
    "tierway_in_flight_requests": "requests in flight",
    "tierway_streams_active": "streams open",
    "tierway_tasks": "tasks",
}
"""What is read from `/metrics`, as far as it is there."""
RESTING: Final = ("requests in flight", "streams open", "open leases")
"""What is nothing once nobody asks any more."""

Sample = dict[str, float]


class Watch:
    """Looks at the gateway, its store and what it has open."""

    def __init__(self, running: Running, store: Store, upstream_port: int) -> None:
        self._running = running
        self._store = store
        self._port = upstream_port
        self._client = httpx2.AsyncClient(trust_env=False, timeout=10.0)

    async def sample(self, seconds: float) -> Sample:
        pids = tree(self._running.ask(QUICK).pid or 0)
        alone = without_stores(pids)
        return {
            "seconds": seconds,
            "memory, MB": rss(alone) / 1e6,
            "the store's memory, MB": (rss(pids) - rss(alone)) / 1e6,
            "descriptors": descriptors(alone),
            "threads": threads(alone),
            "upstream connections": connections_to(self._port),
            "open leases": await self._store.call("ZCARD", layout.LEASES),
            "the store's keys": await self._store.call("DBSIZE"),
            **await self._gauges(),
        }

    async def _metrics(self) -> str:
        url = self._running.url.removesuffix(self._running.target.path)
        return (await self._client.get(f"{url}/metrics")).text

    async def lag(self) -> lag.Buckets:
        return lag.read(await self._metrics())

    async def _gauges(self) -> Sample:
        text = await self._metrics()
        families = [family for family in text_string_to_metric_families(text) if family.name in GAUGES]
        return {GAUGES[family.name]: sum(each.value for each in family.samples) for family in families}

    async def keys(self) -> tuple[dict[str, int], list[str]]:
        """How many keys each partition holds, and what is wrong with any of them."""
        counts: Counter[str] = Counter()
        faults: list[str] = []
        cursor = b"0"
        while True:
            cursor, names = await self._store.call("SCAN", cursor, "COUNT", AT_ONCE)
            lefts = await asyncio.gather(*(self._store.call("TTL", name) for name in names))
            for name, left in zip((name.decode("utf-8", "replace") for name in names), lefts, strict=True):
                if left != -2:  # it was gone by then
                    counts[_partition(name)] += 1
                    faults += [fault] if (fault := layout.fault_of(name, left)) else []
            if cursor == b"0":
                return dict(counts.most_common()), faults

    async def aclose(self) -> None:
        await self._client.aclose()


def _partition(key: str) -> str:
    return next((name for name, each in layout.PARTITIONS.items() if each.holds(key)), "none")


@contextlib.asynccontextmanager
async def watching(running: Running, upstream: str) -> AsyncIterator[Watch]:
    store = Store(Address(path=folders.prepare(running.folder / "data").socket), timeout=30.0)
    await store.open()
    watch = Watch(running, store, urlsplit(upstream).port or 0)
    try:
        yield watch
    finally:
        await watch.aclose()
        await store.aclose()


async def soaked(running: Running, upstream: str, seconds: float, clients: int) -> dict[str, Any]:
    """The samples of a run, how it was afterwards, and what came of the requests."""
    mixture = Mixture(running.ask, ABORTS, seed=1)
    loop = asyncio.get_running_loop()
    async with watching(running, upstream) as watch:
        began, late = loop.time(), await watch.lag()
        samples = [await watch.sample(0.0)]
        async with asyncio.TaskGroup() as group:
            load = group.create_task(mixture.run(clients, seconds))
            while not load.done():
                await asyncio.wait([load], timeout=max(0.2, seconds / SAMPLES))
                samples.append(await watch.sample(loop.time() - began))
        lateness = lag.quantile(late, await watch.lag(), LAG_SHARE)
        rest = await _at_rest(watch, began)
        counts, faults = await watch.keys()
    return {
        "samples": samples,
        "rest": rest,
        "lag_seconds": lateness,
        "keys": counts,
        "key_faults": faults[:20],
        "requests": mixture.count(),
        "left": mixture.count(LEFT),
        "failed": mixture.count() - mixture.count(OK, LEFT),
        "outcomes": {" ".join(names): count for names, count in sorted(mixture.outcomes.items())},
    }


async def _at_rest(watch: Watch, began: float) -> Sample:
    """Once nothing is under way any more, or when that took too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + REST_SECONDS
    while True:
        sample = await watch.sample(loop.time() - began)
        if loop.time() > deadline or not any(sample.get(name, 0) > 0 for name in RESTING):
            return sample
        await asyncio.sleep(0.2)


def verdict(seen: Mapping[str, Any]) -> list[str]:
    """What is wrong, in words; nothing where all is well."""
    found = growing(seen["samples"][1:], SLACKS)
    found += [
        f"{name} does not come to rest: {seen['rest'][name]:.0f}" for name in RESTING if seen["rest"].get(name, 0) > 0
    ]
    found += seen["key_faults"]
    if seen["lag_seconds"] is None or seen["lag_seconds"] > LAG_SECONDS:
        found.append(f"the event loop is late: {LAG_SHARE:.0%} of the time by at most {seen['lag_seconds']} s")
    if seen["failed"] > FAILED_SHARE * seen["requests"]:
        found.append(f"{seen['failed']} of {seen['requests']} requests failed")
    return found


def chart(document: Mapping[str, Any]) -> str:
    points = {
        name: [(sample["seconds"], sample[name]) for sample in document["samples"] if name in sample]
        for name in document["samples"][-1]
        if name != "seconds"
    }
    left = document["left"] / max(1, document["requests"])
    return svg(f"Soak, {document['time']}: {document['requests']:,} requests, {left:.0%} of them left", points)


def shown(document: Mapping[str, Any]) -> str:
    samples, rest = document["samples"], document["rest"]
    rows = ["| | at first | most | at last | at rest |", "|---|---:|---:|---:|---:|"]
    for name in samples[-1]:
        if name != "seconds":
            values = [sample[name] for sample in samples if name in sample]
            numbers = (values[0], max(values), values[-1], rest.get(name, 0))
            rows.append(f"| {name} | " + " | ".join(f"{number:,.0f}" for number in numbers) + " |")
    keys = ", ".join(f"{name} {count:,}" for name, count in document["keys"].items())
    said = f"{document['requests']:,} requests, of which {document['left']:,} left and {document['failed']:,} failed"
    late = f"event loop late by at most {document['lag_seconds']} s, {LAG_SHARE:.0%} of the time"
    wrong = [f"- {each}" for each in document["verdict"]] or ["Nothing keeps growing."]
    return "\n".join([*rows, "", f"{said}; {document['outcomes']}", late, f"keys of the store: {keys}", "", *wrong])


def run(minutes: float, clients: int) -> dict[str, Any]:
    open_more_files()
    where, began = cores(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with (
        tempfile.TemporaryDirectory(prefix="bench-soak-") as folder,
        on_core(where.rest),
        serving("mock", 0) as upstreams,
    ):
        running = Running(tierway("tierway"), upstreams, Path(folder), where.gateway)
        try:
            running.start()
            seen = uvloop.run(soaked(running, upstreams["openai"], minutes * 60, clients))
        finally:
            running.stop()
    about = {"time": began, "commit": commit(), "machine": machine(), "minutes": minutes, "clients": clients}
    return {**about, **seen, "verdict": verdict(seen)}


def store(document: Mapping[str, Any], folder: Path) -> Path:
    """The samples; the chart has the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{str(document['time']).replace(':', '')}.json"
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    path.with_suffix(".svg").write_text(chart(document))
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=32, help="how many ask at once (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the samples and the chart")
    asked = parser.parse_args(arguments)
    document = run(asked.minutes, asked.clients)
    print(shown(document))
    print(f"\nstored in {store(document, asked.results)}, with a chart beside it", file=sys.stderr)
    return 1 if document["verdict"] else 0


if __name__ == "__main__":
    sys.exit(main())
