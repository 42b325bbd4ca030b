"""Names of epochs. An epoch is one life of the store's counters: a gateway that finds another than it knows must not
spend on it, unless an operator began it by hand, after `rebuilt` with what the journals say, after `reset` with
nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Final

BEGUN, REBUILT, RESET = "begun", "rebuilt", "reset"
BY_HAND: Final = (f"{REBUILT}-", f"{RESET}-")


def new_epoch(kind: str = BEGUN) -> str:
    return f"{kind}-{secrets.token_hex(8)}"


def is_by_hand(epoch: str) -> bool:
    """Whether an operator put it there: gateways take it for theirs."""
    return epoch.startswith(BY_HAND)


def that_count(seen: Iterable[tuple[int, str]], current: str) -> frozenset[str]:
    """Of the epochs of some entries, with the moment of each entry, those whose spend the store should know of while it
    is in `current`: all since the last reset."""
    first: dict[str, int] = {}
    for at_ms, epoch in seen:
        first[epoch] = min(at_ms, first.get(epoch, at_ms))
    if current.startswith(RESET) and current not in first:
        return frozenset({current})
    resets = [at_ms for epoch, at_ms in first.items() if epoch.startswith(RESET)]
    since = first[current] if current.startswith(RESET) else max(resets, default=0)
    return frozenset({current, *(epoch for epoch, at_ms in first.items() if at_ms >= since)})
