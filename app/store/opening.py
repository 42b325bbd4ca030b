"""Opens the store that the settings name: an outside server, or the embedded one of the data folder."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from app.store import address
from app.store.client import CALL_SECONDS, Observer, Store
from app.store.server import EmbeddedServer


def _unobserved(name: str, seconds: float) -> None:
    """Nobody asked for timings."""


@contextlib.asynccontextmanager
async def open_store(
    redis_url: str | None,
    data_dir: Path,
    *,
    always: bool = False,
    timeout: float = CALL_SECONDS,
    observer: Observer = _unobserved,
) -> AsyncIterator[Store]:
    """`always`: the embedded server syncs every write before it acknowledges it. Raises `StoreUnusable`."""
    async with contextlib.AsyncExitStack() as stack:
        if redis_url is None:
            server = EmbeddedServer(data_dir, always=always)
            stack.push_async_callback(server.aclose)
            await server.start()
            store = Store(
                address.Address(path=server.socket),
                timeout=timeout,
                observer=observer,
                make_durable=server.make_durable,
            )
        else:
            store = Store(address.parse(redis_url), timeout=timeout, observer=observer)
        stack.push_async_callback(store.aclose)
        await store.open()
        yield store
