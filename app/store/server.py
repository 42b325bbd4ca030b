"""Supervisor of the embedded server: several processes with one data folder share one server and one of them keeps it.

Whoever gets the holder's lock starts the server and starts it again when it dies. The others keep a connection to it
and try for the lock the moment that ends, so a holder that is killed (its server dies with it) is replaced at once.
Nothing here reads or writes data; that is `client`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from app.core.errors import StoreUnavailable
from app.core.tasks import TaskOwner
from app.store import folder as folders
from app.store import launch
from app.store.disk import keep_safe
from app.store.errors import StoreUnusable
from app.store.link import pack

START_SECONDS: Final = 10.0
LOAD_SECONDS: Final = 60.0
STOP_SECONDS: Final = 5.0
DURABLE_SECONDS: Final = 2.0
STEP_SECONDS: Final = 0.005
LONGEST_PAUSE: Final = 1.0
HEALTHY_SECONDS: Final = 2.0  # a server that lived that long is started again without a pause

log = logging.getLogger("tierway.store")


class Gone(Exception):
    """The server is not there, or no longer."""


class EmbeddedServer:
    """`start` returns when the server answers; from then on it is kept alive until `aclose`."""

    def __init__(self, data_dir: Path, *, always: bool = False) -> None:
        self._folder = folders.prepare(data_dir)
        if always:
            self._folder.set_always()
        self._ready: asyncio.Future[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._tasks = TaskOwner(lambda name, error: log.error("%s failed: %r", name, error))

    @property
    def socket(self) -> str:
        return self._folder.socket

    @property
    def holds(self) -> bool:
        """Whether the server is a child of this process."""
        return self._process is not None

    async def start(self, timeout: float = LOAD_SECONDS) -> None:
        """Raises `StoreUnusable` when there is no server after all."""
        self._ready = asyncio.get_running_loop().create_future()
        self._tasks.spawn(self._keep(self._ready), "store-server")
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._ready)
        except BaseException as error:  # also when cancelled: no server may stay behind
            await self.aclose()
            if isinstance(error, TimeoutError):
                raise StoreUnusable(f"the embedded server in {self._folder.path} does not answer") from None
            raise

    async def aclose(self) -> None:
        """Stops the server if it is ours; another process that uses it starts it again."""
        await self._tasks.cancel()
        if self._ready is not None and not self._ready.cancel() and not self._ready.cancelled():
            self._ready.exception()

    async def make_durable(self) -> None:
        """From now on every write is on the disk before it is acknowledged. Raises `StoreUnavailable`."""
        self._folder.set_always()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DURABLE_SECONDS):
                while True:
                    if await self._configure("appendfsync", "always"):
                        return
                    await asyncio.sleep(STEP_SECONDS)
        raise StoreUnavailable("The store cannot be made durable now.", retry_after=1)

    async def _refuse_writes(self, on: bool) -> bool:
        """By asking for a replica, which there is none of."""
        return await self._configure("min-replicas-to-write", str(int(on)))

    async def _configure(self, name: str, value: str) -> bool:
        with contextlib.suppress(Gone):
            async with _talk(self.socket) as (reader, writer):
                await _ask(reader, writer, "CONFIG", "SET", name, value)
                return True
        return False

    # --- keeping it ---------------------------------------------------------------------------------------------------

    async def _keep(self, ready: asyncio.Future[None]) -> None:
        while True:
            try:
                await self._hold_or_follow(ready)
            except (StoreUnusable, OSError) as error:
                fault = error if isinstance(error, StoreUnusable) else StoreUnusable(f"the embedded server: {error}")
                if not ready.done():
                    ready.set_exception(fault)
                    return
                log.error("%s", fault)
                await asyncio.sleep(LONGEST_PAUSE)

    async def _hold_or_follow(self, ready: asyncio.Future[None]) -> None:
        lock = self._folder.lock("holder.lock")
        if lock is None:
            await self._follow(ready)
            return
        try:
            await self._hold(ready)
        finally:
            os.close(lock)

    async def _follow(self, ready: asyncio.Future[None]) -> None:
        """Returns when the server that somebody else keeps is gone."""
        with contextlib.suppress(Gone):
            await _watch(self.socket, ready)
        await asyncio.sleep(STEP_SECONDS)

    async def _hold(self, ready: asyncio.Future[None]) -> None:
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            began = loop.time()
            self._process = await self._launch()
            safe = self._tasks.spawn(keep_safe(self._folder.path, self._refuse_writes), "store-disk")
            try:
                await self._run(self._process, ready)
            finally:
                safe.cancel()
                await self._stop(self._process)
                self._process = None
            if not ready.done():
                raise StoreUnusable(
                    f"the embedded server in {self._folder.path} does not start: {self._folder.explain()}"
                )
            pause = 0.0 if loop.time() - began > HEALTHY_SECONDS else min(LONGEST_PAUSE, 2 * pause + STEP_SECONDS)
            log.warning("the embedded server ended and is started again: %s", self._folder.explain())
            await asyncio.sleep(pause)

    async def _launch(self) -> subprocess.Popen[bytes]:
        """Called on the loop's own thread: the server dies with the thread that started it."""
        with contextlib.ExitStack() as files:
            output = self._folder.open_log()
            files.callback(os.close, output)
            lock = await self._claim()
            files.callback(os.close, lock)
            launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(lock)]
            return subprocess.Popen(  # noqa: ASYNC220 - returns when the child exists, and must not leave this thread
                [*launcher, *self._folder.command()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"LC_ALL": "C"},  # none of our secrets
                pass_fds=(lock,),
                start_new_session=True,
            )

    async def _claim(self) -> int:
        """The lock that says that no server has these files open; one left over from a dead holder is ended."""
        give_up = asyncio.get_running_loop().time() + START_SECONDS
        while (lock := self._folder.lock("server.lock")) is None:
            if asyncio.get_running_loop().time() > give_up:
                raise StoreUnusable(f"another server keeps {self._folder.path} and cannot be stopped")
            self._folder.kill_survivors()
            await asyncio.sleep(STEP_SECONDS)
        return lock

    async def _run(self, process: subprocess.Popen[bytes], ready: asyncio.Future[None]) -> None:
        """Returns when the process has ended."""
        while process.poll() is None:
            with contextlib.suppress(Gone):
                await _watch(self.socket, ready)
            await asyncio.sleep(STEP_SECONDS)

    async def _stop(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        give_up = asyncio.get_running_loop().time() + STOP_SECONDS
        while process.poll() is None:
            if asyncio.get_running_loop().time() > give_up:
                process.kill()
            await asyncio.sleep(STEP_SECONDS)


@contextlib.asynccontextmanager
async def _talk(path: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose every failure is `Gone`."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as error:
        raise Gone(str(error)) from None
    try:
        yield reader, writer
    except OSError as error:
        raise Gone(str(error)) from None
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *command: str) -> None:
    """Asks until the server has loaded its data."""
    answer = b"-LOADING"
    while answer.startswith(b"-LOADING"):
        writer.write(pack(command))
        answer = await reader.readline()
        if answer.startswith(b"+"):
            return
        await asyncio.sleep(STEP_SECONDS)
    raise Gone(answer.decode("ascii", "replace"))


async def _watch(path: str, ready: asyncio.Future[None]) -> None:
    """Sets `ready` once the server at `path` answers, returns when its connection ends. Raises `Gone`."""
    async with _talk(path) as (reader, writer):
        await _ask(reader, writer, "PING")
        if not ready.done():
            ready.set_result(None)
        await reader.read()
