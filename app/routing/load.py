"""Busy upstreams: a model whose upstream is nearly full lets a free one of its size and side go before it. Pure.

Load alone never turns a free answer into a paid one, nor an able model into a weaker one unless that is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.routing.profiles import Profile

BUSY: Final = 0.8
"""The share of its ceiling in use from which an upstream counts as busy. A queue counts as more than all of it."""


def relieved(order: list[int], profiles: Sequence[Profile], covers: Sequence[bool], busy: Sequence[bool]) -> list[int]:
    """The same order, but within each group of equals (side, size, able or not) those that are free take the places of
    those that are busy."""
    groups: dict[tuple[bool, str, bool], list[int]] = {}
    for index in order:
        each = profiles[index]
        groups.setdefault((each.local, each.tier, covers[index]), []).append(index)
    turns = {group: iter(sorted(members, key=busy.__getitem__)) for group, members in groups.items()}
    return [next(turns[profiles[index].local, profiles[index].tier, covers[index]]) for index in order]


def smaller(order: Sequence[int], profiles: Sequence[Profile], busy: Sequence[bool]) -> int | None:
    """The strongest free model, of the first one's side, that is smaller than it; None when there is none."""
    first = profiles[order[0]]
    fits = [
        index
        for index in order[1:]
        if not busy[index] and profiles[index].local is first.local and profiles[index].top < first.top
    ]
    return max(fits, key=lambda index: profiles[index].top) if fits else None
