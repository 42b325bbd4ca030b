"""How a gateway stops: it says that it takes no more requests, lets those under way end, tells the rest why, and only
then lets the server go.

A second signal hurries: what is still under way is told at once. The server hears of the signal last, because from then
on it closes connections and does not wait for what requests have left to settle.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from app.core.tasks import ErrorHandler, TaskOwner
from app.telemetry.logs import get_logger

LAST_WORDS_SECONDS: Final = 5.0
"""What streams get that are told why they end, to write it and to settle."""

WAITING: Final = "no more requests are taken, and those under way may end; a second Ctrl-C (or signal) ends them now"

Go = Callable[[], None]

log = get_logger("tierway")


class Stopping:
    """`begun`: no more requests are taken. `requests` are those under way."""

    def __init__(self, on_error: ErrorHandler) -> None:
        self.begun = False
        self.requests: set[asyncio.Task[Any]] = set()
        self._hurried = False
        self._awaited = False  # somebody waits, or has waited, for requests to end
        self._changed = asyncio.Event()
        self._tasks = TaskOwner(on_error)

    def begins(self) -> asyncio.Task[Any]:
        """A request begins, in the task that calls this; it must end."""
        task = asyncio.current_task()
        assert task is not None, "requests run in tasks"
        self.requests.add(task)
        return task

    def ends(self, task: asyncio.Task[Any]) -> None:
        self.requests.discard(task)
        if self._awaited:
            self._changed.set()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Both, around a request."""
        task = self.begins()
        try:
            yield
        finally:
            self.ends(task)

    def follow(self, numbers: Sequence[signal.Signals], grace: float) -> None:
        """Hears these signals before the server does, which has its handlers set already."""
        loop = asyncio.get_running_loop()
        for number in numbers:
            server = signal.getsignal(number)
            assert callable(server), "the server has set its handlers"
            loop.add_signal_handler(number, self.signalled, grace, lambda n=number, s=server: s(n, None))

    def signalled(self, grace: float, go: Go) -> None:
        """A signal came: the first begins, any other hurries. `go` once all is over."""
        if self.begun:
            self._hurried = True
            self._changed.set()
            return
        self.begun = True
        if self.requests:
            log.warning(WAITING, requests=len(self.requests), seconds=grace)
        self._tasks.spawn(self._run(grace, go), "stopping")

    async def _run(self, grace: float, go: Go) -> None:
        try:
            await self.ended(grace)
            for task in self.requests:
                task.cancel()
            self._hurried = False
            await self.ended(LAST_WORDS_SECONDS)
        finally:
            go()

    async def ended(self, seconds: float) -> None:
        """Waits for the requests under way, that long at most, or until somebody is in a hurry."""
        self._awaited = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.requests and not self._hurried:
                    self._changed.clear()
                    await self._changed.wait()
