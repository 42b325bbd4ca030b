"""Lets one gateway follow another: the new one is built beside the old one, gets what comes from then on, and the old
one closes when nobody uses it any more.

Each lives in a task of its own from its first line to its last, so that what it opens is closed where it was opened.
What it is made of is none of this module's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Generic, TypeVar

from app.core.tasks import ErrorHandler, TaskOwner

S = TypeVar("S")
T = TypeVar("T")

LOOK_SECONDS: Final = 0.05
CLOSE_SECONDS: Final = 60.0
"""How long all of them may take to close in the end, before they are cut."""


class Living(Generic[T]):
    """One gateway and how many requests it has. Whoever uses it counts itself, and away again. `retired`: it gets no
    new ones."""

    def __init__(self, value: T) -> None:
        self.value = value
        self.users = 0
        self.retired = asyncio.Event()


class Generations(Generic[S, T]):
    """`build(settings, before)` makes one; `before` is the one that is there, None for the first. `busy` says whether
    one has work to end that no request waits for."""

    def __init__(
        self,
        build: Callable[[S, T | None], AbstractAsyncContextManager[T]],
        on_error: ErrorHandler,
        busy: Callable[[T], bool] = lambda value: False,
    ) -> None:
        self.current: Living[T] | None = None
        self._build = build
        self._lives = TaskOwner(on_error)
        self._busy = busy
        self._over = False

    async def follow(self, settings: S) -> T:
        """Builds one, which is the current one from the moment it is there. Raises what kept it from coming to life;
        then the one before goes on. Whoever gives up waiting ends the building, unless it is done."""
        born: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        life = self._lives.spawn(self._live(settings, born), "gateway")
        try:
            return await born
        finally:
            if born.cancelled():
                life.cancel()

    async def aclose(self) -> None:
        """Closes all of them, whoever uses them."""
        self._over = True
        if self.current is not None:
            self.current.retired.set()
        await self._lives.drain(CLOSE_SECONDS)

    async def _live(self, settings: S, born: asyncio.Future[T]) -> None:
        before = self.current
        try:
            async with self._build(settings, None if before is None else before.value) as value:
                if not born.cancelled() and not self._over:
                    living = self._succeeds(Living(value))  # nothing happens between a birth and this
                    born.set_result(value)
                    await self._wanted(living)
        except BaseException as error:  # whoever waits for it gets it; afterwards it is the task's own
            if born.done() or isinstance(error, asyncio.CancelledError):
                raise
            born.set_exception(error)
            born.exception()  # looked at even when whoever waits has just gone, or asyncio reports it as lost
        finally:
            born.cancel()

    def _succeeds(self, living: Living[T]) -> Living[T]:
        if self.current is not None:
            self.current.retired.set()
        self.current = living
        return living

    async def _wanted(self, living: Living[T]) -> None:
        """Until another has followed and the last request is over, or all is."""
        await living.retired.wait()
        # looked at now and then, so that requests need not pay for an event each
        while (living.users or self._busy(living.value)) and not self._over:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
