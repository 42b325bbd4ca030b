"""Gateways that share a store, as processes that can be killed, and what strikes them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, Final

import yaml

from app.core.tasks import TaskOwner
from tests.chaos.short_leases import LEASE_MS
from tests.cli.conftest import Command, environment

ROOT: Final = Path(__file__).parents[2]
ADMIN_KEY: Final = "the-admin-key-of-this-test"
START_SECONDS: Final = 60.0
"""Of four processes at once, on a machine with other things to do."""
STARTS: Final = 10


class Fleet:
    def __init__(self, folder: Path, count: int, config: dict[str, Any]) -> None:
        self.data = folder / "data"
        self.ports: dict[int, int] = {}
        self.frozen: set[int] = set()
        self._commands: dict[int, Command] = {}
        self._file = folder / "tierway.yaml"
        self._file.write_text(yaml.safe_dump(config))
        self._count = count

    async def start(self) -> None:
        await asyncio.gather(*map(self.start_one, range(self._count)))

    async def start_one(self, number: int) -> None:
        """Again, where the store was away just then: what supervises processes does so too."""
        for _ in range(STARTS):
            try:
                return await self._start(number)
            except AssertionError:
                await asyncio.to_thread(self._commands.pop(number).close)
        raise AssertionError("a gateway does not start")

    async def _start(self, number: int) -> None:
        env = environment(
            self.data,
            TIERWAY_CONFIG=str(self._file),
            TIERWAY_PORT="0",
            TIERWAY_ADMIN_KEY=ADMIN_KEY,
            TIERWAY_LOG_LEVEL="critical",
        )
        line, pipe = [sys.executable, "-m", "tests.chaos.short_leases", "serve"], subprocess.PIPE
        process = subprocess.Popen(line, stdout=pipe, stderr=pipe, env=env, text=True, cwd=ROOT)
        command = self._commands[number] = Command(process)
        for stream, lines in ((process.stdout, command.out), (process.stderr, command.err)):
            assert stream is not None
            reader = threading.Thread(target=lines.extend, args=(stream,))
            reader.start()
            command.readers.append(reader)
        told = await asyncio.to_thread(command.until, "\n\ncurl ", START_SECONDS)
        found = re.search(r"http://[\d.]+:(\d+)", told)
        assert found, told
        self.ports[number] = int(found[1])

    async def kill(self, number: int) -> None:
        del self.ports[number]
        command = self._commands.pop(number)
        command.process.kill()
        await asyncio.to_thread(command.close)

    def send(self, number: int, what: signal.Signals) -> None:
        self._commands[number].process.send_signal(what)

    def signal_store(self, what: signal.Signals) -> None:
        """To the embedded server, if there is one just now."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            group = int((self.data / "store" / "server.lock").read_text().split()[0])
            if os.fsencode(self.data) in Path(f"/proc/{group}/cmdline").read_bytes():  # it, and nobody after it
                os.killpg(group, what)

    async def end(self) -> None:
        """In peace."""
        ending = [asyncio.to_thread(command.end, seconds=START_SECONDS) for command in self._commands.values()]
        statuses = await asyncio.gather(*ending)
        told = [command.told for command in self._commands.values()]
        self.close()
        assert statuses == [0] * self._count, told

    def close(self) -> None:
        for command in self._commands.values():
            with contextlib.suppress(ProcessLookupError):
                command.process.send_signal(signal.SIGCONT)
            command.close()
        self._commands.clear()


class Strikes:
    """What befalls a fleet, drawn by a seed. At least two gateways are always up. `done` counts what happened."""

    def __init__(self, fleet: Fleet, dice: Random, every: float) -> None:
        self.done: Counter[str] = Counter()
        self._fleet = fleet
        self._dice = dice
        self._every = every
        self._errors: list[BaseException] = []
        self._tasks = TaskOwner(lambda name, error: self._errors.append(error))
        self._kinds: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
            self._kill_gateway,
            self._kill_store,
            self._stop_store,
            self._stop_gateway,
        )

    async def run(self) -> None:
        """Each kind once, in some order, and then on and on, until it is cancelled."""
        while True:
            for strike in self._dice.sample(self._kinds, len(self._kinds)):
                await asyncio.sleep(self._every * self._dice.uniform(0.5, 1.5))
                self._tasks.spawn(strike(), strike.__name__)

    async def over(self) -> None:
        """What was struck is up again."""
        await self._tasks.drain(2 * START_SECONDS)
        assert not self._errors, self._errors

    def _up(self) -> int | None:
        up = sorted(self._fleet.ports.keys() - self._fleet.frozen)
        return self._dice.choice(up) if len(up) > 2 else None

    async def _kill_gateway(self) -> None:
        if (number := self._up()) is not None:
            self.done["gateway killed"] += 1
            await self._fleet.kill(number)
            await self._fleet.start_one(number)

    async def _stop_gateway(self) -> None:
        """For longer than its leases last: it comes back as a ghost, and goes on where it stood."""
        if (number := self._up()) is not None:
            self.done["gateway stopped"] += 1
            self._fleet.frozen.add(number)
            self._fleet.send(number, signal.SIGSTOP)
            await asyncio.sleep(1.5 * LEASE_MS / 1_000)
            self._fleet.send(number, signal.SIGCONT)
            self._fleet.frozen.discard(number)

    async def _kill_store(self) -> None:
        self.done["store killed"] += 1
        self._fleet.signal_store(signal.SIGKILL)

    async def _stop_store(self) -> None:
        self.done["store stopped"] += 1
        self._fleet.signal_store(signal.SIGSTOP)
        await asyncio.sleep(self._dice.uniform(0.1, 1.2))
        self._fleet.signal_store(signal.SIGCONT)
