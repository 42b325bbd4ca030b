"""Failed authentications per address: who guesses soon waits. Whose key is right is left to others.

An address is the other end of the connection, never what a header claims. Behind a proxy all share one, so a key that
nobody can guess must be looked at first, and only what is left is refused. Kept in this process, and bounded.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final

from app.core.clock import Clock
from app.core.errors import RateLimited

MOST: Final = 30
"""Failures in one minute that an address is heard out for."""
SECONDS: Final = 60.0
ADDRESSES: Final = 4_096
OWN_BITS: Final = 64
"""What one host of IPv6 may change in its address as it likes."""


class Failures:
    """`failed` notes one, `check` refuses an address that had too many within its minute."""

    def __init__(self, clock: Clock, *, most: int = MOST, addresses: int = ADDRESSES) -> None:
        self._clock = clock
        self._most = most
        self._addresses = addresses
        self._seen: dict[str, tuple[float, int]] = {}  # the end of its minute and how many; the oldest first

    def check(self, peer: str) -> None:
        """Raises `RateLimited` with the time that is left."""
        if not self._seen:  # as always, but for guessers
            return
        ends, count = self._seen.get(_host(peer), (0.0, 0))
        left = ends - self._clock.monotonic()
        if count >= self._most and left > 0:
            raise RateLimited("Too many wrong keys came from this address; wait a moment.", retry_after=left)

    def failed(self, peer: str) -> None:
        host, now = _host(peer), self._clock.monotonic()
        ends, count = self._seen.get(host, (0.0, 0))
        if ends > now:
            self._seen[host] = ends, count + 1
            return
        self._seen.pop(host, None)
        while len(self._seen) >= self._addresses:
            del self._seen[next(iter(self._seen))]
        self._seen[host] = now + SECONDS, 1


def _host(peer: str) -> str:
    """One name for all addresses that one host may take."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if not isinstance(address, IPv6Address):
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> OWN_BITS << OWN_BITS))
