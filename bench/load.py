"""The load generator: so many connections, each asking again when it has been answered, for a bounded time.

Figures are taken in a window that opens after a warm-up. It talks to this machine only.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlsplit

import orjson

from bench.processes import CpuMeter, rss, tree, without_stores
from bench.reading import Reading
from bench.workloads import NUMBER, Workload

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost"})
WARM_UP: Final = 0.4
MOST_NUMBERS: Final = 10 ** len(NUMBER)
LOST_MOST: Final = 200
"""Lost connections after which nothing is asked any more."""
SAMPLE_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Ask:
    """Where to send a workload, and as what."""

    url: str
    model: str
    headers: Sequence[str] = ()
    pid: int | None = None


@dataclass(slots=True)
class Tally:
    """What came of it. Only what happens while `counting` counts; errors always do. `asked` is the number of the last
    request, counted from anywhere: what one load asked, the next one is not to ask again."""

    counting: bool = False
    stopped: bool = False
    begun: int = 0
    asked: int = field(default_factory=lambda: random.randrange(MOST_NUMBERS))
    all_begun: asyncio.Event = field(default_factory=asyncio.Event)
    done: int = 0
    events: int = 0
    whole: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


class Client(asyncio.Protocol):
    """One connection. `again` is called when it is lost and the load goes on."""

    def __init__(self, workload: Workload, request: bytes, tally: Tally, again: Callable[[], None]) -> None:
        self._workload = workload
        self._request = request
        self._tally = tally
        self._again = again
        self._reading: Reading | None = None
        self._transport: asyncio.Transport | None = None
        self._asked = 0.0
        self._first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._tally.stopped:
            return
        if self._reading is not None:
            self._tally.errors["connection lost"] += 1
        self._again()

    def data_received(self, data: bytes) -> None:
        reading = self._reading
        if reading is None:
            return
        events, content = reading.events, reading.content
        reading.feed(data)
        if self._tally.counting:
            self._tally.events += reading.events - events
        if reading.content and not content:
            self._first = time.perf_counter()
            self._tally.begun += 1
            if self._tally.begun == self._workload.connections:
                self._tally.all_begun.set()
        if reading.over:
            self._end(reading)

    @property
    def streaming(self) -> bool:
        """Whether an answer is under way of which content has come."""
        return self._reading is not None and self._reading.content

    def leave(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _ask(self) -> None:
        assert self._transport is not None
        self._reading = Reading(self._workload.stream)
        self._asked = time.perf_counter()
        self._tally.asked += 1  # so that each asks something of its own
        before, mark, after = self._request.partition(NUMBER.encode())
        self._transport.write(before + (b"%08d" % (self._tally.asked % MOST_NUMBERS) if mark else b"") + after)

    def _end(self, reading: Reading) -> None:
        self._reading = None
        self._count(reading, time.perf_counter())
        if self._transport is None or self._tally.stopped:
            return
        if reading.closes or reading.status != 200:
            self._transport.close()
        else:
            self._ask()

    def _count(self, reading: Reading, now: float) -> None:
        tally = self._tally
        if not reading.whole or (self._workload.stream and reading.events < self._workload.tokens):
            tally.errors[f"status {reading.status}" if reading.status != 200 else "cut short"] += 1
        elif tally.counting:
            tally.done += 1
            tally.whole.append(now - self._asked)
            if self._workload.stream:
                tally.first.append(self._first - self._asked)


def address(url: str) -> tuple[str, int]:
    """Raises `ValueError` for an address beyond this machine."""
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK or parts.port is None:
        raise ValueError(f"{url} is no port of this machine")
    return parts.hostname, parts.port


def request_bytes(ask: Ask, workload: Workload) -> bytes:
    """The whole HTTP request; a `NUMBER` in it becomes that of the request when it is sent."""
    host, port = address(ask.url)
    body = orjson.dumps(
        {
            "model": ask.model,
            "messages": [{"role": "user", "content": workload.prompt}],
            **({"stream": True, "stream_options": {"include_usage": True}} if workload.stream else {}),
        }
    )
    head = (
        f"POST {urlsplit(ask.url).path}/chat/completions HTTP/1.1",
        f"Host: {host}:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *ask.headers,
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def measure(ask: Ask, workload: Workload, request: bytes | None = None) -> dict[str, Any]:
    """Puts the load on, and says what was seen: counts, times, and what the gateway's processes used."""
    tally, clients = Tally(), set[Client]()
    asked = request_bytes(ask, workload) if request is None else request
    host, port = address(ask.url)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:

        async def connect(delay: float) -> None:
            await asyncio.sleep(delay)
            if tally.stopped:
                return
            try:
                client = Client(workload, asked, tally, again)
                await loop.create_connection(lambda: client, host, port)
                clients.add(client)
            except OSError as error:
                tally.errors[type(error).__name__] += 1
                again()

        def again() -> None:
            if tally.errors.total() < LOST_MOST:
                group.create_task(connect(0.005))

        for number in range(workload.connections):
            group.create_task(connect(workload.ramp * number / workload.connections))
        await asyncio.sleep(workload.ramp + WARM_UP)
        if workload.patience:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(tally.all_begun.wait(), workload.patience)
        seen = await _window(ask, workload, tally)
        seen["streams_open"] = sum(client.streaming for client in clients)
        tally.stopped = True
        for client in clients:
            client.leave()
    return seen


async def _window(ask: Ask, workload: Workload, tally: Tally) -> dict[str, Any]:
    pids = [] if ask.pid is None else tree(ask.pid)
    alone = without_stores(pids)
    meter, own_meter, opened = CpuMeter(pids), CpuMeter(alone), time.perf_counter()
    own = time.process_time()
    tally.counting = True
    largest = largest_alone = 0
    while (left := opened + workload.seconds - time.perf_counter()) > 0:
        await asyncio.sleep(min(SAMPLE_SECONDS, left))
        largest, largest_alone = max(largest, rss(pids)), max(largest_alone, rss(alone))
    tally.counting = False
    cpu, cpu_alone, wall = meter.seconds(), own_meter.seconds(), time.perf_counter() - opened
    return {
        "seconds": wall,
        "requests": tally.done,
        "events": tally.events,
        "requests_s": tally.done / wall,
        "events_s": tally.events / wall,
        "errors": dict(tally.errors),
        "load_share_of_core": (time.process_time() - own) / wall,
        **_times("whole", tally.whole),
        **_times("first", tally.first),
        **({"share_of_core": cpu / wall} if pids else {}),
        **(_used("cpu", cpu, tally) if pids else {}),
        **(_used("alone", cpu_alone, tally) if pids else {}),
        **({"rss_mb": largest / 1e6, "rss_alone_mb": largest_alone / 1e6} if pids else {}),
    }


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which that share of them lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _times(name: str, seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    if not ordered:
        return {}
    return {f"{name}_ms_p{part}": quantile(ordered, part / 100) * 1e3 for part in (50, 90, 99)}


def _used(whose: str, cpu: float, tally: Tally) -> dict[str, float]:
    used = {f"{whose}_s": cpu}
    if tally.done:
        used[f"{whose}_ms_per_request"] = cpu / tally.done * 1e3
    if tally.events:
        used[f"{whose}_us_per_event"] = cpu / tally.events * 1e6
    return used
