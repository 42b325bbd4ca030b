"""Cancels what a task does when somebody says that nobody waits for it any more, without a task that waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from app.core.tasks import Watched

Notice = Callable[[Callable[[], None] | None], None]
"""Is given whom to call when somebody leaves, at once where they have left; None when that does not matter any more."""


class CancelledBy:
    """The body is cancelled when `notice` calls, and `Watched` is raised. A cancellation from outside stays one."""

    __slots__ = ("_before", "_body", "_fired", "_name", "_notice")

    def __init__(self, notice: Notice, name: str) -> None:
        self._notice = notice
        self._name = name
        self._fired = False

    async def __aenter__(self) -> None:
        body = asyncio.current_task()
        assert body is not None
        self._body, self._before = body, body.cancelling()
        self._notice(self._fire)

    def _fire(self) -> None:
        if not self._fired:
            self._fired = True
            self._body.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._notice(None)
        if not self._fired:
            return
        alone = self._body.uncancel() <= self._before
        if alone and isinstance(error, asyncio.CancelledError):
            raise Watched(self._name) from None
