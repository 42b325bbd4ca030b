"""Several servers that are one upstream: which of them gets the next request.

Least in flight first, then the shortest queue, then whoever has waited longest for a request. A conversation stays
where its prefix is cached, unless that server is noticeably busier than another. What makes a replica
go away or come back is noticed by the adapter, which marks it here; nothing in this module does I/O.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Final

NOBODY: Final[frozenset[str]] = frozenset()
BUSIER: Final = 4
"""So many more requests at one server than at the least busy one are worth reading a conversation anew elsewhere."""


@dataclass(slots=True)
class Replica:
    """One server. `away`: refusing, dead or asleep. `queue_depth` is what it last said of itself; `turn` is the
    number of the last lease it got."""

    url: str
    in_flight: int = 0
    queue_depth: int = 0
    away: bool = False
    turn: int = 0


class Pool:
    """The replicas of one upstream, by their base URLs."""

    def __init__(self, urls: Sequence[str]) -> None:
        if not urls:
            raise ValueError("a pool needs at least one URL")
        self._replicas = {url: Replica(url) for url in urls}
        self._turn = 0

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return tuple(self._replicas.values())

    @property
    def waiting(self) -> int:
        """How many requests wait at all replicas together, by what they last said."""
        return sum(one.queue_depth for one in self._replicas.values() if not one.away)

    @property
    def awake(self) -> bool:
        """Whether any replica may be asked."""
        return self.others(NOBODY)

    @contextlib.contextmanager
    def lease(self, skip: Set[str] = NOBODY, conversation: str | None = None) -> Iterator[str]:
        """The URL to use; in flight there until the context is left.

        Replicas that are away or in `skip` are taken only when there is no other, those in `skip` last. Requests of
        one `conversation` go to the same one as long as nothing speaks against it.
        """
        replica = min(self._replicas.values(), key=lambda one: _order(one, skip))
        if conversation is not None and len(self._replicas) > 1:
            home = max(self._replicas.values(), key=lambda one: _affinity(one, conversation))
            if _order(home, skip)[:2] == _order(replica, skip)[:2] and _busy(home) - _busy(replica) <= BUSIER:
                replica = home
        self._turn += 1
        replica.turn = self._turn
        replica.in_flight += 1
        try:
            yield replica.url
        finally:
            replica.in_flight -= 1

    def others(self, skip: Set[str]) -> bool:
        """Whether there is a replica outside `skip` that is not away."""
        return any(not one.away and one.url not in skip for one in self._replicas.values())

    def mark(self, url: str, *, away: bool | None = None, queue_depth: int | None = None) -> None:
        """What was noticed of a replica; None leaves it as it was."""
        replica = self._replicas[url]
        if away is not None:
            replica.away = away
        if queue_depth is not None:
            replica.queue_depth = queue_depth


def _order(replica: Replica, skip: Set[str]) -> tuple[bool, bool, int, int, int]:
    return replica.url in skip, replica.away, replica.in_flight, replica.queue_depth, replica.turn


def _busy(replica: Replica) -> int:
    return replica.in_flight + replica.queue_depth


def _affinity(replica: Replica, conversation: str) -> bytes:
    """The same on every gateway, and one replica more or less moves only its own conversations."""
    return hashlib.blake2b(f"{replica.url}\0{conversation}".encode(), digest_size=8).digest()
