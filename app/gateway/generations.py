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

from app.core.tasks import TaskOwner

S = TypeVar("S")
T = TypeVar("T")

LOOK_SECONDS: Final = 0.05


class Living(Generic[T]):
    """One gateway and how many requests it has. Whoever uses it counts itself, and away again."""

    def __init__(self, value: T) -> None:
        self.value = value
        self.users = 0


class Generations(Generic[S, T]):
    """`build(settings, before)` makes one; `before` is the one that is there, None for the first. `busy` says whether
    one has work to end that no request waits for."""

    current: Living[T]

    def __init__(
        self,
        build: Callable[[S, T | None], AbstractAsyncContextManager[T]],
        tasks: TaskOwner,
        busy: Callable[[T], bool] = lambda value: False,
    ) -> None:
        self._build = build
        self._tasks = tasks
        self._busy = busy
        self._over = asyncio.Event()
        self._ends: set[asyncio.Task[None]] = set()
        self._retire: asyncio.Event | None = None

    async def follow(self, settings: S) -> T:
        """Builds one, which is the current one from then on. Raises what kept it from coming to life; then the one
        before goes on."""
        before, retire = getattr(self, "current", None), asyncio.Event()
        born: asyncio.Future[Living[T]] = asyncio.get_running_loop().create_future()
        life = self._tasks.spawn(self._live(settings, before, born, retire), "gateway")
        self._ends.add(life)
        life.add_done_callback(self._ends.discard)
        self.current = await born
        if self._retire is not None:
            self._retire.set()
        self._retire = retire
        return self.current.value

    async def aclose(self) -> None:
        """Closes all of them, whoever uses them."""
        self._over.set()
        if self._ends:
            await asyncio.wait(set(self._ends))

    async def _live(
        self, settings: S, before: Living[T] | None, born: asyncio.Future[Living[T]], retire: asyncio.Event
    ) -> None:
        try:
            async with self._build(settings, None if before is None else before.value) as value:
                living = Living(value)
                if not born.cancelled():
                    born.set_result(living)
                    await self._wanted(living, retire)
        except asyncio.CancelledError:
            born.cancel()
            raise
        except BaseException as error:  # whoever waits for it gets it; afterwards it is the task's own
            if born.done():
                raise
            born.set_exception(error)

    async def _wanted(self, living: Living[T], retire: asyncio.Event) -> None:
        """Until another has followed and the last request is over, or all is."""
        over = self._tasks.spawn(self._over.wait(), "end of all gateways")
        retired = self._tasks.spawn(retire.wait(), "end of one gateway")
        try:
            await asyncio.wait((over, retired), return_when=asyncio.FIRST_COMPLETED)
            # looked at now and then, so that requests need not pay for an event each
            while (living.users or self._busy(living.value)) and not self._over.is_set():  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            over.cancel()
            retired.cancel()
