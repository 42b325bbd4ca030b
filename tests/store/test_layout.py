from __future__ import annotations

import pytest

from app.store import layout
from app.store.client import Store


@pytest.mark.parametrize(
    "key",
    [
        layout.LAYOUT,
        layout.VERSIONS,
        layout.KEYS,
        layout.KEYS_REVOKED,
        layout.SUCCESS,
        layout.BASELINE,
        layout.ROOM,
        layout.ROLLOUTS,
        layout.TRIALS,
        layout.UPSTREAMS,
    ],
)
def test_every_name_has_the_tag_and_a_partition(key: str) -> None:
    """Without the one hash tag a script fails on Redis Cluster."""
    assert key.startswith("{tierway}:")
    assert layout.fault_of(key, -1) is None


def test_a_key_that_lives_longer_or_shorter_than_its_partition_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key without an end fills the store; one with an end loses what was promised for ever."""
    partitions = {**layout.PARTITIONS, "brief": layout.Partition("{tierway}:brief", 60)}
    monkeypatch.setattr(layout, "PARTITIONS", partitions)
    assert layout.fault_of("{tierway}:brief:1", 60) is None
    assert layout.fault_of("{tierway}:brief:1", 61) == "{tierway}:brief:1 has 61 s left, its partition allows 60"
    assert layout.fault_of("{tierway}:brief:1", -1) is not None
    assert layout.fault_of(layout.KEYS, 5) == "{tierway}:keys should live for ever and has 5 s left"
    assert layout.fault_of("{tierway}:keysmith", -1) == "{tierway}:keysmith belongs to no partition"


@pytest.mark.parametrize("partition", [name for name, one in layout.PARTITIONS.items() if one.seconds is not None])
def test_keys_of_a_partition_that_ends_are_named_by_it(partition: str) -> None:
    key = layout.key(partition, "1")
    assert layout.fault_of(key, layout.lifetime(partition)) is None
    assert layout.fault_of(key, layout.lifetime(partition) + 1) is not None
    assert layout.fault_of(key, -1) is not None


def test_no_key_belongs_to_two_partitions() -> None:
    for name, one in layout.PARTITIONS.items():
        assert [other for other, each in layout.PARTITIONS.items() if each.holds(f"{one.prefix}:1")] == [name]


async def test_what_opening_writes_is_declared(store: Store) -> None:
    keys = await store.call("KEYS", "*")
    assert keys == [layout.LAYOUT.encode()]
    assert [layout.fault_of(key.decode(), await store.call("TTL", key)) for key in keys] == [None]
