"""Without these a key's limits let too much through, or keep its owner out for no reason."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.limits import duration, error_of, header_rows, rates_of, seats_of, unused
from app.core.caller import ANONYMOUS, Caller
from app.core.errors import TooLargeForRate
from app.core.spending import RateState, Seats
from app.store import layout
from app.store.address import Address
from app.store.client import Store
from app.store.ledger import Admitted, LedgerStore, Limited, NoSeat

KEY = Caller(key_id="key_1", requests_per_minute=10, tokens_per_minute=1_000, concurrency=3)
LEASE_MS = 60_000


@pytest.fixture
async def ledgers(store: Store, valkey: Path) -> AsyncIterator[list[LedgerStore]]:
    """Two gateways on one store."""
    other = Store(Address(path=str(valkey)), timeout=10.0)
    await other.open()
    yield [LedgerStore(store), LedgerStore(other)]
    await other.aclose()


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_who_has_no_limits_asks_for_nothing() -> None:
    """Such a request must not cost a call of the store."""
    assert rates_of(ANONYMOUS, 10, 10) == () and seats_of(ANONYMOUS, "r") is None


def test_each_limit_is_asked_for_under_its_own_name() -> None:
    requests, tokens = rates_of(KEY, 30, 50)
    assert (requests.kind, requests.burst, requests.cost, requests.emission_us) == ("requests", 10, 1, 6_000_000)
    assert (tokens.kind, tokens.burst, tokens.cost, tokens.emission_us) == ("tokens", 1_000, 80, 60_000)
    seats = seats_of(KEY, "r")
    assert seats is not None and seats.most == 3
    names = (requests.key, tokens.key, seats.key)
    assert len({*names}) == 3
    assert all(layout.fault_of(name, 60) is None and "key_1" in name for name in names)
    assert rates_of(Caller(key_id="key_2", tokens_per_minute=5), 1, 0)[0].key != tokens.key


def test_requests_that_share_an_id_do_not_share_a_seat() -> None:
    """A caller chooses its ids, and could run any number of requests on one seat."""
    first, second = seats_of(KEY, "mine"), seats_of(KEY, "mine")
    assert first is not None and second is not None and first.holder != second.holder


@given(st.integers(1, 60_000_000))
def test_a_minute_never_brings_more_than_the_limit(limit: int) -> None:
    (rate,) = rates_of(Caller(key_id="k", tokens_per_minute=limit), 0, 0)
    assert rate.emission_us * limit >= 60_000_000
    assert rate.cost == 1  # nothing is for nothing
    if limit <= 600_000:
        assert 60_000_000 / rate.emission_us > 0.99 * limit


@pytest.mark.parametrize(("prompt", "cost"), [(0, 1_000), (500, 1_000), (1_000, 1_000), (1_001, 1_001)])
def test_a_guess_alone_makes_no_request_too_large(prompt: int, cost: int) -> None:
    """Or a key of few tokens a minute could ask for nothing without naming max_tokens."""
    assert rates_of(KEY, prompt, 1_024, guessed=True)[1].cost == cost
    assert rates_of(KEY, prompt, 1_024)[1].cost == prompt + 1_024
    assert rates_of(KEY, 1, 2, guessed=True)[1].cost == 3


def test_what_is_given_back_is_what_was_asked_for_and_not_used() -> None:
    rates = rates_of(KEY, 100, 300)
    assert unused(rates, 150) == [(rates[1], 250)]
    assert unused(rates, 400) == []
    assert unused(rates, 500) == [(rates[1], -100)]
    assert unused(rates, 10**9) == [(rates[1], -10_000)]  # not out for longer than ten minutes
    assert unused(rates[:1], 5) == []


# --- what callers are told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.0000001, "0s"),
        (0.00001, "1ms"),
        (0.012, "12ms"),
        (0.9991, "1s"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.9999, "1m0s"),
        (60, "1m0s"),
        (90.951, "1m30.951s"),
        (360, "6m0s"),
        (3_600, "1h0m0s"),
        (85_656.648, "23h47m36.648s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    """Clients parse them."""
    assert duration(seconds) == text


def test_headers_are_named_as_openai_names_them() -> None:
    states = (RateState("requests", 60, 59, 1.0), RateState("tokens", 150_000, 149_984, 360.0))
    assert header_rows(states) == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-reset-requests", b"1s"),
        (b"x-ratelimit-limit-tokens", b"150000"),
        (b"x-ratelimit-remaining-tokens", b"149984"),
        (b"x-ratelimit-reset-tokens", b"6m0s"),
    ]


def test_an_error_says_which_limit_and_what_to_do() -> None:
    requests, tokens = RateState("requests", 1, 0, 60), RateState("tokens", 1_000, 400, 36)
    error = error_of(Limited(requests, 59.5, (requests, tokens)))
    assert "1 request a minute" in error.message and "59.5s" in error.message
    assert (error.status, error.code, error.retry_after) == (429, "rate_limit_exceeded", 59.5)
    assert error.rates == (requests, tokens) and error.client_may_retry is None
    large = error_of(Limited(tokens, math.inf, (requests, tokens)))
    assert isinstance(large, TooLargeForRate) and "1000 tokens a minute" in large.message
    assert large.message.startswith("Request too large") and "max_tokens" in large.message
    assert large.retry_after is None and large.client_may_retry is False
    full = error_of(NoSeat(3))
    assert "3 requests running" in full.message and full.retry_after == 1


# --- at the store -----------------------------------------------------------------------------------------------------


async def test_of_fifty_at_once_exactly_as_many_pass_as_may(ledgers: list[LedgerStore]) -> None:
    """Over two gateways: a limit that each keeps alone is twice the limit."""
    caller = Caller(key_id="key_1", requests_per_minute=10)
    answers = await asyncio.gather(
        *(ledgers[i % 2].admit(None, rates_of(caller, 5, 5), lease_ms=LEASE_MS) for i in range(50))
    )
    passed = [each for each in answers if isinstance(each, Admitted)]
    refused = [each for each in answers if isinstance(each, Limited)]
    assert (len(passed), len(refused)) == (10, 40)
    assert sorted(each.rates[0].remaining for each in passed) == list(range(10))
    assert all(each.rate.kind == "requests" and 0 < each.retry_after_seconds <= 6 for each in refused)


async def test_unused_tokens_can_be_used_at_once_and_too_many_are_owed(ledgers: list[LedgerStore]) -> None:
    first, second = ledgers
    caller = Caller(key_id="key_1", tokens_per_minute=1_000)
    rates = rates_of(caller, 200, 700)
    assert isinstance(await first.admit(None, rates, lease_ms=LEASE_MS), Admitted)
    assert isinstance(await second.admit(None, rates, lease_ms=LEASE_MS), Limited)
    await first.hand_back(unused(rates, 100))
    again = await second.admit(None, rates, lease_ms=LEASE_MS)
    assert isinstance(again, Admitted) and 0 <= again.rates[0].remaining < 20
    await second.hand_back(unused(rates, 1_900))
    owing = await first.admit(None, rates_of(caller, 1, 0), lease_ms=LEASE_MS)
    assert isinstance(owing, Limited) and 55 < owing.retry_after_seconds <= 61 and owing.rate.remaining == 0


async def test_what_is_larger_than_a_minute_is_refused_at_once_and_takes_nothing(ledgers: list[LedgerStore]) -> None:
    """Waiting would not help, so nobody is told to wait."""
    answer = await ledgers[0].admit(None, rates_of(KEY, 500, 501), lease_ms=LEASE_MS)
    assert isinstance(answer, Limited) and isinstance(error_of(answer), TooLargeForRate)
    assert [state.remaining for state in answer.rates] == [10, 1_000]
    assert isinstance(await ledgers[1].admit(None, rates_of(KEY, 500, 500), lease_ms=LEASE_MS), Admitted)


async def test_seats_are_as_many_as_said_and_come_back(ledgers: list[LedgerStore]) -> None:
    caller = Caller(key_id="key_1", concurrency=3)
    wanted = [seats_of(caller, "mine") for _ in range(20)]
    answers = await asyncio.gather(
        *(ledgers[i % 2].admit(None, (), seats, lease_ms=LEASE_MS) for i, seats in enumerate(wanted))
    )
    taken: list[Seats] = [
        seats for seats, each in zip(wanted, answers, strict=True) if seats and isinstance(each, Admitted)
    ]
    assert len(taken) == 3 and answers.count(NoSeat(3)) == 17
    await ledgers[1].hand_back((), taken[0])
    assert isinstance(await ledgers[0].admit(None, (), seats_of(caller, "next"), lease_ms=LEASE_MS), Admitted)
    assert await ledgers[0].admit(None, (), seats_of(caller, "one more"), lease_ms=LEASE_MS) == NoSeat(3)


async def test_all_that_limits_write_is_declared(ledgers: list[LedgerStore], store: Store) -> None:
    assert isinstance(
        await ledgers[0].admit(None, rates_of(KEY, 1, 1), seats_of(KEY, "r"), lease_ms=LEASE_MS), Admitted
    )
    found = [key.decode() for key in await store.call("KEYS", "*")]
    assert len(found) == 4
    assert [layout.fault_of(key, await store.call("TTL", key)) for key in found] == [None] * 4
