"""The name of every key in the store, which partition it belongs to and how long that lives.

All names share one hash tag, so that a script may touch any of them on Redis Cluster too. The layout has a version: a
release reads its own and the one before, and refuses what a newer one wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TAG: Final = "{tierway}"
VERSION: Final = 1
READS: Final = frozenset({1})
DAY: Final = 86_400

LAYOUT: Final = f"{TAG}:layout"
VERSIONS: Final = f"{TAG}:versions"  # hash: topic -> counter of its changes
KEYS: Final = f"{TAG}:keys"  # hash: key id -> its record
KEYS_REVOKED: Final = f"{TAG}:keys:revoked"  # hash: key id -> when, so that revoking never rewrites a record
SUCCESS: Final = f"{TAG}:success"  # hash: model, task type, tier -> sums of evidence
BASELINE: Final = f"{TAG}:baseline"  # hash: the quality of one model at one time, to compare with
ROOM: Final = f"{TAG}:room"  # hash: how much room decisions may still take, and since when
ROLLOUTS: Final = f"{TAG}:rollouts"  # hash: name -> how it stands
TRIALS: Final = f"{TAG}:rollouts:trials"  # hash: name -> what its arms did lately
ROLLOUTS_SEEN: Final = f"{TAG}:rollouts-seen"  # hash: what gateways saw since one of them last looked
ROLLOUTS_TURN: Final = f"{TAG}:rollouts-turn"  # there while one of them looks
UPSTREAMS: Final = f"{TAG}:upstreams"  # hash: drains and resets by operators
AUDIT: Final = f"{TAG}:audit"  # list: what was changed, by whom and why, newest first

CHANGES: Final = f"{TAG}:changes"  # a channel, not a key


@dataclass(frozen=True, slots=True)
class Partition:
    """Keys that start alike and live alike; `seconds` None: for ever."""

    prefix: str
    seconds: int | None

    def holds(self, key: str) -> bool:
        return key == self.prefix or key.startswith(f"{self.prefix}:")


PARTITIONS: Final[Mapping[str, Partition]] = {
    "layout": Partition(LAYOUT, None),
    "versions": Partition(VERSIONS, None),
    "keys": Partition(KEYS, None),
    "success": Partition(SUCCESS, None),
    "baseline": Partition(BASELINE, None),
    "room": Partition(ROOM, None),
    "decision": Partition(f"{TAG}:decision", 7 * DAY),
    "training": Partition(f"{TAG}:training", 90 * DAY),
    "ask": Partition(f"{TAG}:ask", 1_800),
    "merged": Partition(f"{TAG}:merged", 3_600),
    "rollouts": Partition(ROLLOUTS, None),
    "rollouts-seen": Partition(ROLLOUTS_SEEN, 60),
    "rollouts-turn": Partition(ROLLOUTS_TURN, 1),
    "upstreams": Partition(UPSTREAMS, None),
    "audit": Partition(AUDIT, 90 * 86_400),
}


def key(partition: str, name: str) -> str:
    """The name of one key of a partition that holds many."""
    return f"{PARTITIONS[partition].prefix}:{name}"


def lifetime(partition: str) -> int:
    """Seconds that keys of a partition live at most."""
    seconds = PARTITIONS[partition].seconds
    assert seconds is not None, f"{partition} lives for ever"
    return seconds


def fault_of(key: str, ttl: int) -> str | None:
    """What is wrong with a key that has `ttl` seconds left (-1: no end), or None. For tests that walk a store."""
    partition = next((each for each in PARTITIONS.values() if each.holds(key)), None)
    if partition is None:
        return f"{key} belongs to no partition"
    if partition.seconds is None:
        return None if ttl == -1 else f"{key} should live for ever and has {ttl} s left"
    return (
        None if 0 <= ttl <= partition.seconds else f"{key} has {ttl} s left, its partition allows {partition.seconds}"
    )
