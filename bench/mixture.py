"""A mixed load for a long run: whole answers and streams of several kinds, of which a share is left before its end.

So many clients ask, wait a moment, and ask again. Whoever leaves closes its connection at a random moment, in order or
with a reset, and comes back on a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from bench.load import Ask, request_bytes
from bench.reading import Reading
from bench.workloads import PACED, QUICK, STREAM, Workload

PATIENCE_SECONDS: Final = 60.0
THINK_SECONDS: Final = 0.2
READ_BYTES: Final = 65_536
TURNS: Final = 3


class Kind(NamedTuple):
    """`weight` is its share of the load, `seconds` about how long it takes, so that those who leave leave in between.
    `headers` may name a `{session}`."""

    workload: Workload
    weight: int
    seconds: float
    headers: tuple[str, ...] = ()


KINDS: Final = (
    Kind(Workload("small", "a whole answer", QUICK, 1, 50), 35, 0.005),
    Kind(Workload("large", "a whole answer to 50 KB", QUICK, 1, 50, prompt_bytes=50_000), 5, 0.01),
    Kind(Workload("stream", "100 chunks without delay", STREAM, 1, 100, stream=True), 30, 0.02),
    Kind(Workload("paced", "25 chunks, one every 20 ms", PACED, 1, 25, stream=True), 20, 0.5),
    Kind(Workload("session", "a turn of a session", QUICK, 1, 20), 5, 0.005, ("x-tierway-session: {session}",)),
    Kind(
        Workload("resumable", "a stream that may be resumed", PACED, 1, 10, stream=True),
        5,
        0.2,
        ("x-tierway-resumable: true",),
    ),
)


class Mixture:
    """`ask` says where to send what, by the workload's model; `outcomes` counts what came of it, by kind and word."""

    def __init__(self, ask: Callable[[str], Ask], aborts: float, seed: int, kinds: Sequence[Kind] = KINDS) -> None:
        self._ask = ask
        self._aborts = aborts
        self._seed = seed
        self._kinds = kinds
        self._over = asyncio.Event()
        self.outcomes: Counter[tuple[str, str]] = Counter()

    async def run(self, clients: int, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(number))
            await asyncio.sleep(seconds)
            self._over.set()

    async def _client(self, number: int) -> None:
        chance, line, asked = random.Random(self._seed * 1_000 + number), Line(), 0
        weights = [kind.weight for kind in self._kinds]
        with contextlib.closing(line):
            while not self._over.is_set():
                [kind] = chance.choices(self._kinds, weights)
                leaves = chance.uniform(0, kind.seconds) if chance.random() < self._aborts else None
                ask = self._ask(kind.workload.model)
                session = f"soak-{self._seed}-{number}-{asked // TURNS}"
                more = tuple(header.replace("{session}", session) for header in kind.headers)
                outcome = await line.ask(ask, (*ask.headers, *more), kind.workload, leaves, chance.random() < 0.5)
                self.outcomes[kind.workload.name, outcome] += 1
                asked += kind.workload.name == "session"
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), chance.uniform(0, THINK_SECONDS))

    def count(self, *words: str) -> int:
        """How many requests came to one of these; all, where none are said."""
        return sum(count for (_, word), count in self.outcomes.items() if not words or word in words)


OK, LEFT = "ok", "left"


class Line:
    """One connection, made anew whenever it is gone. `ask` says in a word what came of a request."""

    def __init__(self) -> None:
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(
        self, ask: Ask, headers: Sequence[str], workload: Workload, leaves: float | None, resets: bool
    ) -> str:
        """`leaves`: after so many seconds, if it is not over by then."""
        reading = Reading(workload.stream)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if leaves is None else leaves):
                await self._send(ask.url, request_bytes(Ask(ask.url, ask.model, headers), workload))
                await self._read(reading)
        except TimeoutError:
            self.close(resets)
            return "no answer" if leaves is None else LEFT
        except OSError as error:
            self.close()
            return type(error).__name__
        if reading.closes or reading.status != 200:
            self.close()
        if reading.status != 200:
            return f"status {reading.status}"
        return OK if reading.whole else "cut short"

    async def _send(self, url: str, request: bytes) -> None:
        if self._writer is None or self._writer.is_closing():
            parts = urlsplit(url)
            self._reader, self._writer = await asyncio.open_connection(parts.hostname, parts.port)
        self._writer.write(request)
        await self._writer.drain()

    async def _read(self, reading: Reading) -> None:
        assert self._reader is not None
        while not reading.over:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise ConnectionError
            reading.feed(data)

    def close(self, resets: bool = False) -> None:
        if self._writer is not None:
            if resets:
                self._writer.transport.abort()
            else:
                self._writer.close()
        self._reader = self._writer = None
