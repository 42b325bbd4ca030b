"""Every task has an owner and a name. This is the only module that creates tasks.

`TaskOwner` keeps what runs beside the requests (settling, probes, subscriptions) and lets shutdown wait for it.
`cancel_if` runs a watcher beside the current task and cancels that task when the watcher comes to an end first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

ErrorHandler = Callable[[str, BaseException], None]


class TaskOwner:
    """Starts named tasks and remembers them until they end. An error in one is handed to `on_error`, never lost."""

    def __init__(self, on_error: ErrorHandler) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_error = on_error

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(task.get_name(), error)

    async def drain(self, timeout: float) -> int:
        """Waits for what is running; cancels the rest after `timeout` seconds and returns how many those were."""
        late: set[asyncio.Task[Any]] = set()
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=timeout)
        await self._cancel(late)
        return len(late)

    async def cancel(self) -> None:
        """Cancels everything and waits until it is gone."""
        await self._cancel(set(self._tasks))

    async def _cancel(self, tasks: set[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Watched(Exception):
    """Raised out of `cancel_if` when its watcher ended before the body did."""


@contextlib.asynccontextmanager
async def cancel_if(watcher: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Runs the body while `watcher` runs beside it.

    If the watcher returns first, the body is cancelled and `Watched` is raised; if it fails, its error is raised. If
    the body ends first, the watcher is cancelled. A cancellation from outside stays a cancellation.
    """
    body = asyncio.current_task()
    assert body is not None
    before = body.cancelling()
    fired = over = False

    def ended(task: asyncio.Task[None]) -> None:
        nonlocal fired
        if task.cancelled():
            return
        task.exception()  # looked at even when it comes too late to matter, or asyncio reports it as lost
        if not over:
            fired = True
            body.cancel()

    beside = asyncio.create_task(watcher, name=name)
    beside.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        if not fired or body.cancelling() > before + 1:
            raise
        raise (beside.exception() or Watched(name)) from None
    finally:
        over = True
        if fired:
            body.uncancel()
        if beside.cancel():
            await asyncio.wait((beside,))
