"""Tells every gateway that something shared has changed: keys, flags, drains.

A change moves its topic's counter and publishes the topic. A message only wakes the reader, which then reads the
counters; it also reads them every so often on its own, so that a message lost on the way costs a delay and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from app.core.errors import StoreUnavailable
from app.core.tasks import TaskOwner
from app.store import layout
from app.store.client import Store
from app.store.scripts import load

POLL_SECONDS: Final = 1.5  # a change is promised within 2 s, and reading takes its time too
RETRY_SECONDS: Final = 0.25

CHANGED: Final = load("changed")

Callback = Callable[[], Awaitable[None]]

log = logging.getLogger("tierway.store")


class Broadcast:
    """Hears while inside `running()`. A callback that fails is called again at the next poll."""

    def __init__(self, store: Store, *, poll: float = POLL_SECONDS) -> None:
        self._store = store
        self._poll = poll
        self._callbacks: dict[bytes, list[Callback]] = {}
        self._seen: dict[bytes, bytes | None] = {}
        self._wake = asyncio.Event()

    async def changed(self, topic: str) -> None:
        """Scripts that change something do the same themselves, so that the change cannot happen untold."""
        await self._store.run(CHANGED, (layout.VERSIONS,), (topic, layout.CHANGES), again=True)

    def watch(self, topic: str, callback: Callback) -> None:
        """Calls back soon, and after every change from then on (several changes may be one call)."""
        self._callbacks.setdefault(topic.encode(), []).append(callback)
        self._seen.pop(topic.encode(), None)
        self._wake.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = TaskOwner(lambda name, error: log.error("%s failed: %r", name, error))
        tasks.spawn(self._subscribe(), "broadcast-subscribe")
        tasks.spawn(self._follow(), "broadcast-follow")
        try:
            yield
        finally:
            await tasks.cancel()

    async def _subscribe(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self._store.listen(layout.CHANGES, self._wake.set)
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll):
                    await self._wake.wait()
            self._wake.clear()
            with contextlib.suppress(StoreUnavailable):
                await self._read()

    async def _read(self) -> None:
        topics = list(self._callbacks)
        if not topics:
            return
        versions = await self._store.call("HMGET", layout.VERSIONS, *topics, again=True)
        for topic, version in zip(topics, versions, strict=True):
            if topic not in self._seen or self._seen[topic] != version:
                await self._tell(topic, version)

    async def _tell(self, topic: bytes, version: bytes | None) -> None:
        told = [await _survive(callback, topic) for callback in tuple(self._callbacks[topic])]
        if all(told):
            self._seen[topic] = version


async def _survive(callback: Callback, topic: bytes) -> bool:
    try:
        await callback()
    except StoreUnavailable:
        return False
    except Exception:  # one reader's fault must not keep the others from hearing
        log.exception("a reader of %s failed", topic.decode())
        return False
    return True
