"""Shares of units (sessions, keys, requests) that are drawn by a hash: steady, the same in every process, growing."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

_UNITS: Final = 2**64


def is_in_share(name: str, unit: str, share: float) -> bool:
    """Whether the unit is among the share of this name: always the same ones, and a larger share only adds to them."""
    if share <= 0 or share >= 1:
        return share >= 1
    digest = blake2b(f"{name}:{unit}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) < share * _UNITS
