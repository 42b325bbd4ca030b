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
IDEMPOTENCY_ROOM: Final = f"{ROOM}:idempotency"  # hash: how much room answers kept for repetition may still take
ROLLOUTS: Final = f"{TAG}:rollouts"  # hash: name -> how it stands
TRIALS: Final = f"{TAG}:rollouts:trials"  # hash: name -> what its arms did lately
ROLLOUTS_SEEN: Final = f"{TAG}:rollouts-seen"  # hash: what gateways saw since one of them last looked
ROLLOUTS_TURN: Final = f"{TAG}:rollouts-turn"  # there while one of them looks
UPSTREAMS: Final = f"{TAG}:upstreams"  # hash: drains and resets by operators
RUNTIME: Final = f"{TAG}:runtime"  # hash: number -> a version of what operators changed at run time
BUDGETS: Final = f"{TAG}:budgets"  # hash: id -> a limit that was changed at run time
AUDIT: Final = f"{TAG}:audit"  # list: what was changed, by whom and why, newest first
EPOCH: Final = f"{TAG}:epoch"  # names the life of the counters: an emptied store has none
LEASES: Final = f"{TAG}:leases"  # zset: id of an open lease -> when it is due
COSTS_TOTAL: Final = f"{TAG}:costs-total"  # hash: model and measure -> its sum since the beginning
SESSIONS: Final = f"{TAG}:sessions"  # sorted set: which session expires when
SESSIONS_BYTES: Final = f"{TAG}:sessions:bytes"  # hash: session -> its bytes, and # their sum
STREAMS: Final = f"{TAG}:streams"  # sorted set: the events of which stream expire when
STREAMS_BYTES: Final = f"{TAG}:streams:bytes"  # hash: stream -> bytes of its events, and # their sum

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
    "idempotency": Partition(f"{TAG}:idempotency", DAY),
    "rate": Partition(f"{TAG}:rate", DAY),
    "seats": Partition(f"{TAG}:seats", DAY),
    "session": Partition(f"{TAG}:session", 3_650 * DAY),  # `sessions.ttl_days` at most
    "session-said": Partition(f"{TAG}:session-said", 3_650 * DAY),
    "sessions": Partition(SESSIONS, None),
    "stream": Partition(f"{TAG}:stream", 3_600),  # who makes it, how far it is
    "stream-chunks": Partition(f"{TAG}:stream-chunks", 300),  # its events
    "stream-about": Partition(f"{TAG}:stream-about", DAY),  # what it came to
    "streams": Partition(STREAMS, None),
    "rollouts": Partition(ROLLOUTS, None),
    "rollouts-seen": Partition(ROLLOUTS_SEEN, 60),
    "rollouts-turn": Partition(ROLLOUTS_TURN, 1),
    "upstreams": Partition(UPSTREAMS, None),
    "runtime": Partition(RUNTIME, None),
    "budgets": Partition(BUDGETS, None),
    "budgets-known": Partition(f"{TAG}:budgets-known", 400 * DAY),  # which single counters the limits came to
    "budgets-alert": Partition(f"{TAG}:budgets-alert", 400 * DAY),  # an alert that was sent
    "spend": Partition(f"{TAG}:spend", None),  # counters without an end
    "spend-day": Partition(f"{TAG}:spend-day", 35 * DAY),
    "spend-month": Partition(f"{TAG}:spend-month", 65 * DAY),
    "spend-session": Partition(f"{TAG}:spend-session", 3_650 * DAY),
    "spend-request": Partition(f"{TAG}:spend-request", 2 * DAY),
    "audit": Partition(AUDIT, 90 * 86_400),
    "costs-total": Partition(COSTS_TOTAL, None),
    "costs": Partition(f"{TAG}:costs", 30 * DAY),
    "epoch": Partition(EPOCH, None),
    "acknowledged": Partition(f"{TAG}:acknowledged", 400 * DAY),  # how many settlements, to whom
    "leases": Partition(LEASES, None),
    "lease": Partition(f"{TAG}:lease", 35 * DAY),
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
