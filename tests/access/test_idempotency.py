"""Without these a repeated request is paid for twice, or is answered with somebody else's answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access import idempotency
from app.access.idempotency import (
    ENTRY_BYTES,
    LEAST_SECONDS,
    Answer,
    Asked,
    Claim,
    Idempotency,
    asked_of,
    keepable,
)
from app.core.caller import ANONYMOUS, Caller
from app.core.errors import (
    IdempotencyInFlight,
    IdempotencyMismatch,
    IdempotencyNotKept,
    InternalError,
    InvalidValue,
    Overloaded,
    StoreUnavailable,
)
from app.store import layout
from app.store.address import Address
from app.store.client import Store

ANSWER = Answer(200, ((b"content-type", b"application/json"), (b"x-odd", b"\xe9")), b'{"id": "\xc3\xa9"}\n')
BODY = b'{"model": "auto"}'
CHAT = "/v1/chat/completions"


def asked(
    key: bytes = b"k",
    body: bytes = BODY,
    *,
    caller: Caller = ANONYMOUS,
    path: str = CHAT,
    headers: Mapping[bytes, bytes] | None = None,
) -> Asked:
    return asked_of(caller, key, path, headers or {}, body)


@pytest.fixture
def answers(store: Store) -> Idempotency:
    return Idempotency(store)


@pytest.fixture
async def elsewhere(valkey: Path, store: Store) -> AsyncIterator[Idempotency]:
    """Another gateway on the same store."""
    other = Store(Address(path=str(valkey)), timeout=10.0)
    await other.open()
    yield Idempotency(other)
    await other.aclose()


async def claimed(answers: Idempotency, what: Asked) -> Claim:
    found = await answers.claim(what)
    assert isinstance(found, Claim)
    return found


# --- what is the same request ---------------------------------------------------------------------------------------


def test_a_key_is_its_callers_own() -> None:
    names = [asked(caller=Caller(key_id=who)).name for who in (None, "key_1", "key_2")]
    assert len({*names}) == 3
    assert asked(b"k").name == asked(b"k", b"other", path="/v1/embeddings").name  # to be compared, they must meet


def test_what_changes_the_answer_makes_another_request() -> None:
    plain = asked()
    others = [
        asked(body=BODY + b" "),
        asked(path="/v1/embeddings"),
        asked(headers={b"x-tierway-strategy": b"quality"}),
        asked(headers={b"x-tierway-session": b"s"}),
        asked(headers={b"x-tierway-strategy": b"cost"}),
        asked(body=b"\nx-tierway-strategy:cost\n\n" + BODY),
    ]
    assert len({plain.print, *(each.print for each in others)}) == 7
    same = {b"x-tierway-timeout": b"5", b"x-tierway-priority": b"batch", b"user-agent": b"x", b"x-request-id": b"r2"}
    assert asked(headers=same) == plain
    two = {b"x-tierway-agent": b"a", b"x-tierway-session": b"s"}
    assert asked(headers=two) == asked(headers=dict(reversed(two.items())))


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a\tb", b"\xe9", b"\x7f"])
def test_what_is_no_key_is_refused(key: bytes) -> None:
    with pytest.raises(InvalidValue) as caught:
        asked(key)
    assert caught.value.param == "idempotency-key"


def test_whose_content_may_not_be_stored_has_no_answers_kept() -> None:
    assert keepable(ANONYMOUS) and keepable(Caller(retention_days=1))
    assert not keepable(Caller(store_content="off")) and not keepable(Caller(retention_days=0))


# --- from the first to the last -------------------------------------------------------------------------------------


async def test_the_same_request_gets_the_same_answer_from_any_gateway(
    answers: Idempotency, elsewhere: Idempotency
) -> None:
    claim = await claimed(answers, asked())
    for gateway in (answers, elsewhere):
        with pytest.raises(IdempotencyInFlight) as running:
            await gateway.claim(asked())
        assert running.value.retry_after == 1
        with pytest.raises(IdempotencyMismatch):
            await gateway.claim(asked(body=b"{}"))
    assert await answers.keep(claim, ANSWER)
    for gateway in (answers, elsewhere):
        assert await gateway.claim(asked()) == ANSWER
        with pytest.raises(IdempotencyMismatch):
            await gateway.claim(asked(body=b"{}"))


async def test_of_many_at_once_one_is_first(answers: Idempotency, elsewhere: Idempotency) -> None:
    """A client that times out and tries again, twice, on two replicas."""
    found = await asyncio.gather(
        *((answers, elsewhere)[i % 2].claim(asked()) for i in range(20)), return_exceptions=True
    )
    assert sum(isinstance(each, Claim) for each in found) == 1
    assert sum(isinstance(each, IdempotencyInFlight) for each in found) == 19


async def test_after_a_failure_the_next_is_the_first_again(answers: Idempotency) -> None:
    await answers.release(await claimed(answers, asked()))
    other = await claimed(answers, asked(body=b"mended"))
    assert await answers.keep(other, ANSWER)
    await answers.release(other)  # too late: what was answered stays so
    assert await answers.claim(asked(body=b"mended")) == ANSWER


async def test_a_claim_lives_as_long_as_who_made_it(store: Store) -> None:
    """A gateway that was killed must not keep a key for long, one that takes its time must not lose it."""
    answers = Idempotency(store, hold_seconds=0.15)
    claim = await claimed(answers, asked())
    for _ in range(6):
        await asyncio.sleep(answers.renew_seconds)
        await answers.renew(claim)
    with pytest.raises(IdempotencyInFlight):
        await answers.claim(asked())
    await asyncio.sleep(0.2)
    second = await claimed(answers, asked())
    await answers.renew(claim)  # wakes up late, and has no say any more
    await answers.release(claim)
    assert await answers.keep(claim, ANSWER._replace(status=201))
    with pytest.raises(IdempotencyInFlight):
        await answers.claim(asked())
    assert await answers.keep(second, ANSWER)
    assert await answers.claim(asked()) == ANSWER


async def test_what_comes_after_its_time_is_kept_if_nobody_else_came(store: Store) -> None:
    answers = Idempotency(store, hold_seconds=0.01)
    claim = await claimed(answers, asked())
    await asyncio.sleep(0.05)
    assert await answers.keep(claim, ANSWER)
    assert await answers.claim(asked()) == ANSWER


async def test_keeping_twice_is_keeping_once(answers: Idempotency, store: Store) -> None:
    """The store's client sends a call again whose reply was lost."""
    claim = await claimed(answers, asked())
    await answers.keep(claim, ANSWER)
    left = await store.call("HGET", layout.IDEMPOTENCY_ROOM, "left")
    await answers.keep(claim, ANSWER)
    assert await store.call("HGET", layout.IDEMPOTENCY_ROOM, "left") == left


async def test_an_answer_too_large_to_keep_does_not_look_ungiven(answers: Idempotency) -> None:
    """Or the repetition would be paid for again, without a word."""
    await answers.keep(await claimed(answers, asked()), None)
    with pytest.raises(IdempotencyNotKept, match="too large"):
        await answers.claim(asked())
    with pytest.raises(IdempotencyMismatch):
        await answers.claim(asked(body=b"{}"))


# --- what the store has of it ---------------------------------------------------------------------------------------


async def test_the_store_has_nothing_to_read(answers: Idempotency, store: Store) -> None:
    """Who reads the store or a backup must not read answers, keys or requests."""
    what = asked(b"canary-key", b"canary-body " * 20)
    await answers.keep(await claimed(answers, what), Answer(200, ((b"x", b"canary-head"),), b"canary-answer " * 20))
    found = [key.decode() for key in await store.call("KEYS", "*")]
    assert sorted(found) == sorted([layout.LAYOUT, layout.IDEMPOTENCY_ROOM, what.name])
    assert [layout.fault_of(key, await store.call("TTL", key)) for key in found] == [None] * 3
    entry = b"".join(await store.call("HGETALL", what.name))
    assert b"canary" not in entry and what.secret not in entry and b"canary" not in what.name.encode()
    assert await store.call("TTL", what.name) >= 86_399


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_only_the_request_itself_opens_what_was_sealed(data: bytes, body: bytes) -> None:
    what = asked(body=body)
    sealed = idempotency._seal(data, what, "owner")
    assert idempotency._seal(sealed, what, "owner") == data
    if len(data) > 8:
        assert sealed != data
        assert idempotency._seal(sealed, asked(body=body + b" "), "owner") != data
        assert idempotency._seal(sealed, what, "another") != data


@given(
    st.integers(200, 299),
    st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=4),
    st.binary(max_size=200),
)
def test_any_answer_comes_back_as_it_was(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    answer = Answer(status, tuple(headers), body)
    sealed = idempotency._seal(idempotency._written(answer), asked(), "o")
    assert idempotency._read(asked(), b"o", sealed) == answer


@pytest.mark.parametrize(
    "data", [b"x", b"[]", b"5", b"[200, 5]", b"[200, [[1, 2]]]", b'["x", []]', b"[null, []]", b"\xff"]
)
async def test_what_cannot_be_read_is_no_answer(answers: Idempotency, store: Store, data: bytes) -> None:
    claim = await claimed(answers, asked())
    await answers.keep(claim, ANSWER)
    await store.call("HSET", asked().name, "answer", idempotency._seal(data, asked(), claim.owner))
    with pytest.raises(InternalError):
        await answers.claim(asked())


async def test_room_is_bounded_and_flows_back(store: Store) -> None:
    """Kept answers must never take the memory that the ledger needs: first they live shorter, then there are none."""
    answers = Idempotency(store, room_bytes=20_000)
    body, ttls = b"x" * 1_000, list[int]()
    with pytest.raises(Overloaded) as caught:
        for number in range(10_000):
            what = asked(b"%d" % number)
            await answers.keep(await claimed(answers, what), Answer(200, (), body))
            ttls.append(await store.call("TTL", what.name))
    assert caught.value.retry_after == 60
    assert (
        ttls[0] >= 86_399 and ttls == sorted(ttls, reverse=True) and LEAST_SECONDS - 1 <= ttls[-1] < 2 * LEAST_SECONDS
    )
    assert sum(ttl * (len(body) + ENTRY_BYTES) for ttl in ttls) <= 20_000 * 86_400 * 1.1
    assert await answers.claim(asked(b"0")) == Answer(200, (), body)  # those that are there are there
    at = int(await store.call("HGET", layout.IDEMPOTENCY_ROOM, "at"))
    await store.call("HSET", layout.IDEMPOTENCY_ROOM, "at", at - 43_200)
    assert isinstance(await answers.claim(asked(b"new")), Claim)


async def test_one_that_finds_no_room_is_remembered_without_its_answer(store: Store) -> None:
    answers = Idempotency(store, room_bytes=5_000)
    await answers.keep(await claimed(answers, asked()), Answer(200, (), b"x" * 6_000))
    with pytest.raises(IdempotencyNotKept):
        await answers.claim(asked())


async def test_many_at_once_find_no_more_room_than_there_is(store: Store) -> None:
    answers = Idempotency(store, room_bytes=5_000)
    claims = [await claimed(answers, asked(b"%d" % number)) for number in range(50)]
    for claim in claims:
        await answers.keep(claim, Answer(200, (), b"x" * 1_000))
    sizes = [await store.call("HSTRLEN", claim.asked.name, "answer") for claim in claims]
    assert 0 < sum(sizes) < 10_000 and sizes[-1] == 0
    assert LEAST_SECONDS - 1 <= await store.call("TTL", claims[-1].asked.name) <= LEAST_SECONDS


# --- without the store ----------------------------------------------------------------------------------------------


async def test_without_the_store_nothing_is_promised_and_nothing_else_fails(store: Store) -> None:
    """The answer that is being given must still reach its client."""
    answers = Idempotency(store)
    claim = await claimed(answers, asked())
    await store.aclose()
    with pytest.raises(StoreUnavailable):
        await answers.claim(asked(b"other"))
    assert await answers.keep(claim, ANSWER) is False
    await answers.renew(claim)
    await answers.release(claim)
