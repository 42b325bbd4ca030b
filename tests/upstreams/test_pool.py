"""A pool that chooses badly leaves one machine idle while users wait for another, or sends them to a dead one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstreams.pool import Pool

A, B, C = "http://a", "http://b", "http://c"


def chosen(pool: Pool, skip: frozenset[str] = frozenset()) -> str:
    with pool.lease(skip) as url:
        return url


def test_the_replica_with_least_in_flight_is_chosen() -> None:
    pool = Pool((A, B, C))
    with pool.lease() as first, pool.lease() as second, pool.lease() as third:
        assert {first, second, third} == {A, B, C}
        assert [replica.in_flight for replica in pool.replicas] == [1, 1, 1]


def test_queue_depth_decides_between_equals_only() -> None:
    pool = Pool((A, B))
    pool.mark(A, queue_depth=5)
    with pool.lease() as first:
        assert first == B
        assert chosen(pool) == A  # fewer in flight counts more than a shorter queue


def test_equal_replicas_take_turns() -> None:
    pool = Pool((A, B, C))
    assert [chosen(pool) for _ in range(6)] == [A, B, C, A, B, C]


def test_a_replica_that_is_away_is_passed_over_until_it_is_back() -> None:
    pool = Pool((A, B))
    pool.mark(A, away=True)
    assert [chosen(pool) for _ in range(3)] == [B, B, B]
    assert pool.others({A}) and not pool.others({B})
    pool.mark(A, away=False)
    assert A in {chosen(pool) for _ in range(2)}


def test_when_all_are_away_one_is_tried_still() -> None:
    pool = Pool((A, B))
    pool.mark(A, away=True)
    pool.mark(B, away=True)
    assert chosen(pool) in {A, B}


def test_a_skipped_replica_is_the_last_resort() -> None:
    pool = Pool((A, B))
    pool.mark(B, away=True)
    assert chosen(pool, frozenset({A})) == B
    assert chosen(pool, frozenset({A, B})) == A


def test_marking_one_thing_leaves_the_other_as_it_was() -> None:
    pool = Pool((A,))
    pool.mark(A, away=True, queue_depth=7)
    pool.mark(A, away=False)
    assert pool.replicas[0].queue_depth == 7
    pool.mark(A, queue_depth=0)
    assert not pool.replicas[0].away


def test_a_failed_request_is_no_longer_in_flight() -> None:
    pool = Pool((A,))
    with contextlib.suppress(RuntimeError), pool.lease():
        raise RuntimeError
    assert pool.replicas[0].in_flight == 0


def test_a_pool_of_nothing_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Pool(())


@given(st.lists(st.tuples(st.sampled_from("lease end away back".split()), st.integers(0, 4)), max_size=60))
def test_whatever_happens_load_is_spread_over_the_living(steps: list[tuple[str, int]]) -> None:
    """Every lease goes to a living replica with least in flight, and nothing leaks."""
    pool, open_leases = Pool((A, B, C)), list[contextlib.ExitStack]()
    for step, which in steps:
        replica = pool.replicas[which % 3]
        match step:
            case "lease":
                living = [one for one in pool.replicas if not one.away] or list(pool.replicas)
                least = min(one.in_flight for one in living)
                expected = {one.url for one in living if one.in_flight == least}
                stack = contextlib.ExitStack()
                assert stack.enter_context(pool.lease()) in expected
                open_leases.append(stack)
            case "end" if open_leases:
                open_leases.pop(which % len(open_leases)).close()
            case _:
                pool.mark(replica.url, away=step == "away")
    assert sum(replica.in_flight for replica in pool.replicas) == len(open_leases)
    for stack in open_leases:
        stack.close()
    assert all(replica.in_flight == 0 for replica in pool.replicas)


def test_what_waits_at_those_that_are_there_is_added_up() -> None:
    pool = Pool((A, B, C))
    for url, depth in ((A, 2), (B, 3), (C, 50)):
        pool.mark(url, queue_depth=depth)
    pool.mark(C, away=True)
    assert pool.waiting == 5


def test_a_pool_is_awake_while_one_of_it_is() -> None:
    """A pool that sleeps as a whole must let others go first."""
    pool = Pool(["http://a", "http://b"])
    pool.mark("http://a", away=True)
    assert pool.awake
    pool.mark("http://b", away=True)
    assert not pool.awake


def home(pool: Pool, conversation: str, skip: frozenset[str] = frozenset()) -> str:
    with pool.lease(skip, conversation) as url:
        return url


def test_a_conversation_stays_where_its_prefix_is_cached() -> None:
    """Else every turn reads the whole conversation anew. Many conversations still spread over all replicas."""
    pool = Pool((A, B, C))
    homes = {name: home(pool, name) for name in map(str, range(60))}
    assert set(homes.values()) == {A, B, C}
    assert all(home(pool, name) == url for name, url in homes.items())
    assert all(home(Pool((C, A, B)), name) == url for name, url in homes.items()), "on every gateway"


def test_a_conversation_moves_when_something_forces_it() -> None:
    pool = Pool((A, B))
    first = home(pool, "s")
    other = B if first == A else A
    pool.mark(first, away=True)
    assert home(pool, "s") == other
    pool.mark(first, away=False)
    assert home(pool, "s", frozenset({first})) == other
    pool.mark(first, queue_depth=4)
    assert home(pool, "s") == first
    pool.mark(first, queue_depth=5)
    assert home(pool, "s") == other


def test_without_a_conversation_the_least_busy_is_chosen() -> None:
    pool = Pool((A,))
    assert home(pool, "s") == A
