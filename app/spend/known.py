"""Which agents and sessions have limits of their own counting for them, so that they can be listed on any gateway.

Their names are whatever callers say, so only the latest are remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from app.store import layout
from app.store.client import Store

MOST: Final = 1_000
AGENTS: Final = layout.key("budgets-known", "agents")  # zset: name -> when it was last new to a gateway
SESSIONS: Final = layout.key("budgets-known", "sessions")  # zset: owner, NUL, session -> the same

Owned = tuple[str, str]
"""The owner of a session, and its name."""


class Known:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def remember(self, agents: Collection[str], sessions: Collection[Owned], now: float) -> None:
        """Raises `StoreUnavailable`."""
        await asyncio.gather(
            self._add(AGENTS, agents, now), self._add(SESSIONS, [f"{owner}\0{name}" for owner, name in sessions], now)
        )

    async def read(self) -> tuple[list[str], list[Owned]]:
        """The agents and the sessions."""
        agents, sessions = await asyncio.gather(self._names(AGENTS), self._names(SESSIONS))
        split = (each.partition("\0") for each in sessions)
        return agents, [(owner, name) for owner, _, name in split]

    async def _add(self, key: str, names: Collection[str], now: float) -> None:
        if not names:
            return
        rows = [part for name in list(names)[:MOST] for part in (int(now), name.encode(errors="surrogatepass"))]
        await asyncio.gather(
            self._store.call("ZADD", key, *rows, again=True),
            self._store.call("ZREMRANGEBYRANK", key, 0, -(MOST + 1), again=True),
            self._store.call("EXPIRE", key, layout.lifetime("budgets-known"), again=True),
        )

    async def _names(self, key: str) -> list[str]:
        found = await self._store.call("ZREVRANGE", key, 0, MOST - 1, again=True)
        return [name.decode(errors="surrogatepass") for name in found]
