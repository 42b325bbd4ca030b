"""A limit that is too low wastes a server; one that does not fall drives a struggling one into the ground."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstreams.limit import FORGET_SECONDS, KNOWN, LATE_SECONDS, REFUSED, ROUND_SECONDS, SLOW, Limit

MODEL = "gpu/a"
NOW = 1_000.0


def warmed(limit: Limit, seconds: float = 0.2, in_flight: int = 1) -> Limit:
    """It knows what is usual."""
    for _ in range(KNOWN + 2):
        limit.first_token(MODEL, seconds, in_flight, NOW)
    return limit


def late(limit: Limit, in_flight: int, now: float, count: int = 20) -> None:
    for _ in range(count):
        limit.first_token(MODEL, 10.0, in_flight, now)


def test_it_begins_where_it_is_told_to() -> None:
    assert (Limit(8, 8).calls, Limit(32, 1_000).calls, Limit(32, 4).calls) == (8, 32, 4)


def test_a_ceiling_is_never_passed_however_well_it_goes() -> None:
    limit = Limit(8, 8)
    for _ in range(1_000):
        limit.well(8, NOW)
    assert limit.calls == 8 and not limit.grows


def test_a_guessed_start_is_soon_left_behind() -> None:
    """A thousand streams of a server that takes them all must not queue at a default that nobody chose."""
    limit, rounds = Limit(32, 1_000_000), 0
    while limit.calls < 1_000:
        for _ in range(limit.calls):  # all that are in flight begin to answer
            limit.first_token(MODEL, 0.3, limit.calls, NOW)
        rounds += 1
    assert rounds <= 6


def test_what_is_not_used_does_not_grow() -> None:
    """Else the limit is anything by the time it is needed."""
    limit = Limit(32, 1_000)
    for _ in range(100):
        limit.well(3, NOW)
    assert limit.calls == 32


def test_a_refusal_lowers_it_once_in_a_round() -> None:
    """A hundred calls that are turned away together are one piece of news."""
    limit = Limit(100, 100)
    for _ in range(100):
        limit.refused(NOW)
    assert limit.calls == int(100 * REFUSED)
    limit.refused(NOW + ROUND_SECONDS)
    assert limit.calls == int(100 * REFUSED * REFUSED)


def test_after_a_fall_it_rises_by_one_a_round() -> None:
    limit = Limit(100, 200)
    limit.refused(NOW)
    before = limit.calls
    for _ in range(before + 1):
        limit.well(before, NOW + 1)
    assert limit.calls == before + 1 and not limit.grows


def test_late_first_tokens_lower_it_while_our_calls_are_many() -> None:
    limit = warmed(Limit(10, 10))
    late(limit, in_flight=10, now=NOW)
    assert limit.calls == int(10 * SLOW)


def test_late_first_tokens_of_few_calls_are_not_our_doing() -> None:
    """A model that is loaded, or a long prompt: fewer calls would not make it quicker."""
    limit = warmed(Limit(10, 10))
    late(limit, in_flight=2, now=NOW)
    assert limit.calls == 10


@pytest.mark.parametrize("usual", [0.01, 0.3, 3.0])
def test_what_is_usual_is_not_late(usual: float) -> None:
    """A slow model is slow, and may differ by its prompts."""
    limit = warmed(Limit(10, 10), usual, in_flight=10)
    for turn in range(200):
        limit.first_token(MODEL, usual * (0.5 + turn % 3 * 0.5) + LATE_SECONDS / 4, 10, NOW)
    assert limit.calls == 10


def test_each_model_has_its_own_usual_time() -> None:
    limit = warmed(Limit(10, 10), 0.05)
    for _ in range(20):
        limit.first_token("gpu/slow", 8.0, 10, NOW)
    assert limit.calls == 10


def test_a_lasting_change_becomes_usual() -> None:
    """A server that was replaced by a slower one must not be throttled for ever."""
    limit = warmed(Limit(10, 10))
    late(limit, in_flight=1, now=NOW, count=200)
    late(limit, in_flight=10, now=NOW)
    assert limit.calls == 10


def test_a_quiet_minute_forgets() -> None:
    limit = Limit(10, 10)
    for turn in range(10):
        limit.refused(NOW + turn * ROUND_SECONDS)
    assert limit.calls == 1
    limit.well(0, NOW + 9 + FORGET_SECONDS)
    assert limit.calls == 1
    limit.well(0, NOW + 10 + FORGET_SECONDS)
    assert limit.calls == 10


def test_another_ceiling_begins_anew_and_the_same_does_not() -> None:
    limit = Limit(10, 10)
    limit.refused(NOW)
    assert not limit.configure(10, 10) and limit.calls == 7
    assert limit.configure(4, 4) and limit.calls == 4


NEWS = st.tuples(
    st.sampled_from(["well", "refused", "first"]),
    st.integers(0, 300),
    st.floats(0, 30),
    st.floats(0, 3),
)


@given(st.integers(1, 64), st.integers(1, 256), st.lists(NEWS, max_size=200))
def test_it_stays_between_one_and_its_ceiling(start: int, most: int, news: list[tuple[str, int, float, float]]) -> None:
    """Below one nothing would ever be asked again; above its ceiling an operator was not heard."""
    limit, now = Limit(start, most), NOW
    for what, in_flight, seconds, passed in news:
        now += passed
        before = limit.calls
        if what == "refused":
            limit.refused(now)
            assert limit.calls <= before
        elif what == "well":
            limit.well(in_flight, now)
            assert limit.calls >= before
        else:
            limit.first_token(MODEL, seconds, in_flight, now)
        assert 1 <= limit.calls <= most


@given(st.integers(2, 64), st.integers(1, 63))
def test_it_finds_what_the_server_can_take(start: int, able: int) -> None:
    """Whatever the server refuses beyond, the limit comes to swing around that, and gives it work all the time."""
    able = min(able, start)
    limit, now, seen = Limit(start, start), NOW, list[int]()
    for turn in range(400):
        now += ROUND_SECONDS
        in_flight = limit.calls
        if in_flight > able:
            limit.refused(now)
        else:
            for _ in range(in_flight):
                limit.well(in_flight, now)
        if turn > 100:
            seen.append(in_flight)
    assert max(seen) <= able + 1
    assert sum(seen) / len(seen) >= 0.7 * able
