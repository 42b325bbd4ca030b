"""Without these somebody guesses on for ever, or one who guesses fills our memory."""

from __future__ import annotations

import pytest

from app.access.failures import SECONDS, Failures
from app.core.clock import ManualClock
from app.core.errors import RateLimited


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def refused(failures: Failures, peer: str) -> bool:
    try:
        failures.check(peer)
    except RateLimited:
        return True
    return False


def test_too_many_failures_are_enough_for_a_minute(clock: ManualClock) -> None:
    failures = Failures(clock, most=3)
    for _ in range(3):
        assert not refused(failures, "192.0.2.1")
        failures.failed("192.0.2.1")
    assert refused(failures, "192.0.2.1")
    assert not refused(failures, "192.0.2.2"), "another address is somebody else"
    clock.advance(SECONDS - 7)
    with pytest.raises(RateLimited) as info:
        failures.check("192.0.2.1")
    assert info.value.status == 429 and info.value.retry_after == pytest.approx(7)
    clock.advance(7)
    assert not refused(failures, "192.0.2.1")
    failures.failed("192.0.2.1")
    assert not refused(failures, "192.0.2.1"), "a new minute counts from one"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("192.0.2.1", "192.0.2.11", False),
        ("", "", True),
    ],
)
def test_a_host_cannot_change_its_address_at_will(clock: ManualClock, one: str, other: str, same: bool) -> None:
    """Who has a network of IPv6 has 2^64 addresses; a socket without addresses is one."""
    failures = Failures(clock, most=1)
    failures.failed(one)
    assert refused(failures, one) and refused(failures, other) is same


def test_what_is_remembered_is_bounded(clock: ManualClock) -> None:
    failures = Failures(clock, most=1, addresses=10)
    for number in range(1_000):
        failures.failed(f"192.0.{number // 256}.{number % 256}")
    assert len(failures._seen) == 10
    assert refused(failures, "192.0.3.231"), "the newest are remembered"
    assert not refused(failures, "192.0.0.1"), "the oldest make room"
