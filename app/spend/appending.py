"""Brings items to a file in batches, off the event loop: who adds one never waits, who must know waits for `flush`.

While one batch is being written and synced the next gathers, so a slow disk makes batches larger, not more. A disk
that takes nothing is said once and shown by `healthy`; what could not be written is kept and tried again, up to a
bound. What the file looks like is the business of the function that writes a batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from app.core.tasks import TaskOwner

T = TypeVar("T")

LINGER_SECONDS: Final = 0.01
RETRY_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 2.0
MOST_KEPT: Final = 100_000

log = logging.getLogger("tierway.spend")


class Appender(Generic[T]):
    """`write` runs in a thread, one call at a time, returns when the batch is on the disk, and raises `OSError` where
    that cannot be; it may then be given the same items again. `lost` counts items given up."""

    def __init__(
        self,
        write: Callable[[Sequence[T]], None],
        what: str,
        *,
        linger: float = LINGER_SECONDS,
        retry: float = RETRY_SECONDS,
        patience: float = PATIENCE_SECONDS,
        most_kept: int = MOST_KEPT,
    ) -> None:
        self.healthy = True
        self.lost = 0
        self._write = write
        self._what = what
        self._linger = linger
        self._retry = retry
        self._patience = patience
        self._most_kept = most_kept
        self._waiting: list[T] = []
        self._unwritten = 0  # waiting, or in the thread's hands
        self._told: list[asyncio.Future[bool]] = []
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._tasks = TaskOwner(lambda name, error: log.error("%s failed: %r", name, error))

    def start(self) -> None:
        self._tasks.spawn(self._run(), f"append-{self._what}")

    def add(self, item: T) -> None:
        if len(self._waiting) >= self._most_kept:
            self.lost += 1
            return
        self._unwritten += 1
        if not self._waiting:
            self._wake.set()
        self._waiting.append(item)

    async def flush(self) -> bool:
        """Whether everything added so far is on the disk; waits for it, but not for a disk that takes nothing."""
        if not self._unwritten:
            return True
        if not self.healthy or not len(self._tasks):
            return False
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._told.append(told)
        self._wake.set()
        return await told

    async def aclose(self) -> bool:
        """Writes what is there; nothing that is added later. False: `write` has not returned yet."""
        self._closing.set()
        self._wake.set()
        if not await self._tasks.drain(2 * self._patience):
            return True
        log.error("the disk did not take the last of the %s in time", self._what)
        return False

    async def _run(self) -> None:
        while self._waiting or self._told or not self._closing.is_set():
            await self._wake.wait()
            await asyncio.sleep(self._linger)
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            told, self._told = self._told, []
            written = not batch or await self._try(batch, told)
            self._tell(told, written)
            if not written:
                self._give_up_waiting()
                if self._closing.is_set():
                    return
                await self._pause()
                self._wake.set()

    async def _try(self, batch: list[T], told: Sequence[asyncio.Future[bool]]) -> bool:
        writing = asyncio.get_running_loop().run_in_executor(None, self._write, batch)
        done, _ = await asyncio.wait((writing,), timeout=self._patience)
        if not done:
            self.ail("the disk does not answer")
            self._tell(told, False)
            self._give_up_waiting()
        try:
            await writing
        except OSError as error:
            self.ail(error.strerror or str(error))
            self._keep(batch)
            return False
        except Exception:  # one item that cannot be written must not end the writing of all others
            log.exception("%d entries of the %s are lost", len(batch), self._what)
            self._unwritten -= len(batch)
            self.lost += len(batch)
            self._tell(told, False)
            return True
        self._unwritten -= len(batch)
        if not self.healthy:
            self.healthy = True
            log.warning("the %s is written again (%d lost)", self._what, self.lost)
        return True

    def ail(self, why: str) -> None:
        """Says once that nothing can be written, until something is."""
        if self.healthy:
            self.healthy = False
            log.error("the %s cannot be written: %s", self._what, why)

    def _keep(self, batch: list[T]) -> None:
        kept = batch + self._waiting
        gone = max(0, len(kept) - self._most_kept)
        self._waiting = kept[gone:]
        self._unwritten -= gone
        self.lost += gone

    async def _pause(self) -> None:
        """Cut short by closing."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), self._retry)

    def _give_up_waiting(self) -> None:
        told, self._told = self._told, []
        self._tell(told, False)

    @staticmethod
    def _tell(told: Sequence[asyncio.Future[bool]], durable: bool) -> None:
        for each in told:
            if not each.done():
                each.set_result(durable)
