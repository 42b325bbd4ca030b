from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.access.keys import KeyRecord, KeyRing, Keys, KeySpec, same_secret
from app.core.caller import Caller
from app.core.clock import ManualClock
from app.core.errors import InvalidApiKey, InvalidValue, NotFound, StoreUnavailable
from app.store import layout
from app.store.address import Address
from app.store.broadcast import Broadcast
from app.store.client import Store
from tests.store.live import eventually, ok, puppet

FULL = KeySpec(
    name="bot",
    tenant="acme",
    models=("auto", "ollama/*"),
    expires_at=1_700_000_100,
    priority="batch",
    privacy="local",
    store_content="off",
    retention_days=7,
    budgets={"day": Decimal("0.1"), "total": Decimal("999999.999999999")},
    requests_per_minute=60,
    tokens_per_minute=100_000,
    concurrency=4,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keys(store: Store, clock: ManualClock) -> Keys:
    return Keys(store, clock)


def refuses(ring: KeyRing, secret: str) -> str:
    with pytest.raises(InvalidApiKey) as caught:
        ring.authenticate(secret)
    assert len(secret) < 40 or secret not in caught.value.message
    return caught.value.message


# --- making and checking ----------------------------------------------------------------------------------------------


async def test_a_key_lets_its_owner_in_with_all_it_was_made_with(keys: Keys) -> None:
    record, secret = await keys.create(FULL)
    assert keys.ring.authenticate(secret) == Caller(
        key_id=record.id,
        name="bot",
        tenant="acme",
        models=("auto", "ollama/*"),
        privacy="local",
        store_content="off",
        retention_days=7,
        priority="batch",
        budgets=(("day", 100_000_000), ("total", 999_999_999_999_999)),
        requests_per_minute=60,
        tokens_per_minute=100_000,
        concurrency=4,
    )
    assert record.model_dump() == {
        **FULL.model_dump(),
        "id": record.id,
        "created_at": 1_700_000_000,
        "revoked_at": None,
    }


async def test_secrets_cannot_be_guessed_and_are_not_stored(keys: Keys, store: Store) -> None:
    """Who reads the store or a backup must not be able to call."""
    made = [await keys.create(KeySpec(name="n")) for _ in range(3)]
    stored = b"".join(await store.call("HGETALL", layout.KEYS))
    for record, secret in made:
        assert secret.startswith("tw-")
        assert len(secret) >= 3 + 192 / 6
        assert secret[3:].encode() not in stored
        assert secret not in repr(record) + repr(keys.ring)
    assert len({secret for _, secret in made}) == 3
    assert len({record.id for record, _ in made}) == 3


@given(st.text())
def test_no_text_opens_an_empty_ring(secret: str) -> None:
    assert refuses(KeyRing(ManualClock()), secret) == "The API key is not valid."


async def test_what_is_not_quite_the_secret_is_refused(keys: Keys) -> None:
    _, secret = await keys.create(KeySpec(name="n"))
    for wrong in ("", "tw-", secret[:-1], secret + "x", secret.upper(), secret[3:], "\ud800", secret + "\n"):
        assert refuses(keys.ring, wrong) == "The API key is not valid."


async def test_a_key_ends_when_its_time_comes(keys: Keys, clock: ManualClock) -> None:
    """Without anybody refreshing anything."""
    _, secret = await keys.create(FULL)
    clock.advance(99.9)
    keys.ring.authenticate(secret)
    clock.advance(0.1)
    assert refuses(keys.ring, secret) == "The API key has expired."


async def test_a_key_that_would_never_work_is_not_made(keys: Keys, store: Store) -> None:
    with pytest.raises(InvalidValue) as caught:
        await keys.create(KeySpec(name="late", expires_at=1_700_000_000))
    assert caught.value.param == "expires_at"
    assert await store.call("EXISTS", layout.KEYS) == 0


async def test_with_the_first_budget_the_store_becomes_durable(valkey: Path, clock: ManualClock) -> None:
    """Else a loss of power forgets what was spent, and it can be spent again."""
    made = list[str]()

    async def make_durable() -> None:
        made.append("durable")

    store = Store(Address(path=str(valkey)), make_durable=make_durable)
    await store.open()
    keys = Keys(store, clock)
    await keys.create(KeySpec(name="n", requests_per_minute=1))
    assert made == []
    await keys.create(KeySpec(name="n", budgets={"day": Decimal(5)}))
    assert made == ["durable"]
    await store.aclose()


async def test_a_revoked_key_is_refused_for_good_and_still_listed(keys: Keys, clock: ManualClock) -> None:
    kept, kept_secret = await keys.create(KeySpec(name="kept"))
    clock.advance(1)
    gone, gone_secret = await keys.create(KeySpec(name="gone"))
    clock.advance(10)
    await keys.revoke(gone.id)
    clock.advance(10)
    await keys.revoke(gone.id)  # again: the first time stays
    assert refuses(keys.ring, gone_secret) == "The API key was revoked."
    assert keys.ring.authenticate(kept_secret).key_id == kept.id
    assert [(record.name, record.revoked_at) for record in await keys.list()] == [
        ("kept", None),
        ("gone", 1_700_000_011),
    ]


async def test_revoking_what_does_not_exist_is_said(keys: Keys) -> None:
    with pytest.raises(NotFound):
        await keys.revoke("key_none")
    with pytest.raises(InvalidValue):
        await keys.revoke("\ud800")


async def test_from_the_first_key_on_there_is_one_even_when_revoked(keys: Keys, store: Store) -> None:
    """Revoking the last key must not open the gateway to everybody on the machine; nor must an emptied store."""
    await keys.refresh()
    assert keys.ring == KeyRing(keys.ring.clock)
    record, secret = await keys.create(KeySpec(name="n"))
    await keys.revoke(record.id)
    assert keys.ring.any_created
    await store.call("DEL", layout.KEYS, layout.KEYS_REVOKED)
    await keys.refresh()
    assert keys.ring.any_created
    assert refuses(keys.ring, secret) == "The API key is not valid."


# --- what may be asked for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": ""},
        {"name": "x" * 101},
        {"name": "line\nbreak"},
        {"name": 5},
        {"name": "\ud800"},
        {"tenant": ""},
        {"models": "auto"},
        {"models": [""]},
        {"models": [7]},
        {"models": ["m"] * 101},
        {"expires_at": 0},
        {"expires_at": "tomorrow"},
        {"expires_at": True},
        {"expires_at": 1e400},
        {"expires_at": 10**30},
        {"priority": "first"},
        {"privacy": "none"},
        {"store_content": True},
        {"retention_days": -1},
        {"retention_days": "7"},
        {"requests_per_hour": 5},  # not enforced, so not accepted
        {"requests_per_minute": 0},
        {"requests_per_minute": 1.5},
        {"requests_per_minute": True},
        {"tokens_per_minute": "100"},
        {"tokens_per_minute": 60_000_001},
        {"concurrency": 0},
        {"budgets": {"week": 5}},
        {"budgets": {"day": -1}},
        {"budgets": {"day": 1_000_001}},
        {"budgets": {"day": "much"}},
        {"budgets": {"day": "NaN"}},
        {"budgets": {"day": None}},
        {"budgets": {"day": True}},
        {"budgets": 5},
        {"id": "key_mine"},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    """A limit that is taken and not kept is worse than none."""
    with pytest.raises(ValidationError):
        KeySpec.model_validate(fields if fields == {} or "name" in fields else {"name": "n", **fields})


def test_an_admin_key_is_compared_whatever_it_is() -> None:
    assert same_secret("s3cret", "s3cret")
    for wrong in ("", "s3cre", "s3cret ", "S3CRET", "\ud800"):
        assert not same_secret(wrong, "s3cret")


# --- what the store holds ---------------------------------------------------------------------------------------------


async def test_records_that_cannot_be_read_let_nobody_in_and_harm_no_other(
    keys: Keys, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """One damaged record must not lock every caller out."""
    record, secret = await keys.create(KeySpec(name="good"))
    good = json.loads(await store.call("HGET", layout.KEYS, record.id))
    bad: list[bytes | str] = [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        json.dumps({**good, "sha256": "00"}),
        json.dumps({**good, "models": 1}),
    ]
    for number, text in enumerate(bad):
        await store.call("HSET", layout.KEYS, f"key_bad{number}", text)
    await store.call("HSET", layout.KEYS, "key_alias", json.dumps(good))  # under another id it could not be revoked
    await keys.refresh()
    assert [each.name for each in keys.ring.records] == ["good"]
    assert keys.ring.authenticate(secret).key_id == record.id
    assert len(caplog.records) == len(bad)


async def test_records_of_a_later_release_can_be_read(keys: Keys, store: Store) -> None:
    """Two releases run side by side during an upgrade."""
    record, secret = await keys.create(KeySpec(name="n"))
    known = json.loads(await store.call("HGET", layout.KEYS, record.id))
    await store.call("HSET", layout.KEYS, record.id, json.dumps({**known, "requests_per_hour": 5}))
    await store.call("HSET", layout.KEYS_REVOKED, record.id, "soon")
    await keys.refresh()
    assert refuses(keys.ring, secret) == "The API key was revoked."


async def test_records_of_earlier_releases_have_no_limits(keys: Keys, store: Store) -> None:
    """Keys that were given out before there were limits must go on working."""
    record, secret = await keys.create(KeySpec(name="n"))
    known = json.loads(await store.call("HGET", layout.KEYS, record.id))
    for name in ("budgets", "requests_per_minute", "tokens_per_minute", "concurrency"):
        del known[name]
    await store.call("HSET", layout.KEYS, record.id, json.dumps(known))
    await keys.refresh()
    assert keys.ring.authenticate(secret) == Caller(key_id=record.id, name="n")


@given(st.integers(0, 10**15))
def test_a_budget_keeps_every_nano_dollar_on_its_way_through_json(nano: int) -> None:
    spec = KeySpec.model_validate({"name": "n", "budgets": {"month": Decimal(nano).scaleb(-9)}})
    back = KeyRecord.model_validate_json(KeyRecord(**spec.model_dump(), id="k", created_at=0).model_dump_json())
    assert back.caller().budgets == (("month", nano),)


async def test_all_that_keys_write_is_declared(keys: Keys, store: Store) -> None:
    record, _ = await keys.create(FULL)
    await keys.revoke(record.id)
    found = await store.call("KEYS", "*")
    assert len(found) == 4
    assert [layout.fault_of(key.decode(), await store.call("TTL", key)) for key in found] == [None] * 4


# --- several gateways -------------------------------------------------------------------------------------------------


async def test_gateways_hear_of_each_others_keys_within_two_seconds(
    keys: Keys, store: Store, valkey: Path, clock: ManualClock
) -> None:
    """A leaked key is revoked on one replica and tried on another."""
    elsewhere = Store(Address(path=str(valkey)))
    await elsewhere.open()
    other = Keys(elsewhere, clock)
    broadcast = Broadcast(elsewhere)
    async with broadcast.running():
        other.follow(broadcast)
        record, secret = await keys.create(KeySpec(name="n"))
        await eventually(lambda: other.ring.any_created, seconds=2)
        assert other.ring.authenticate(secret).name == "n"
        await keys.revoke(record.id)
        await eventually(lambda: other.ring.records[0].revoked_at is not None, seconds=2)
        assert refuses(other.ring, secret) == "The API key was revoked."
    await elsewhere.aclose()


async def test_while_the_store_is_away_known_keys_go_on_working(
    store: Store, clock: ManualClock, tmp_path: Path
) -> None:
    """Local traffic must outlive the store."""
    keys = Keys(store, clock)
    _, secret = await keys.create(KeySpec(name="n"))
    ring = keys.ring
    await store.aclose()
    with pytest.raises(StoreUnavailable):
        await keys.refresh()
    assert keys.ring is ring
    assert ring.authenticate(secret).name == "n"
    with pytest.raises(StoreUnavailable):
        await keys.create(KeySpec(name="n"))
    with pytest.raises(StoreUnavailable):
        await keys.list()


async def test_a_made_key_is_handed_out_even_when_it_cannot_be_read_back(tmp_path: Path, clock: ManualClock) -> None:
    """It exists: were its secret lost now, nobody could ever use it."""

    def answer(command: list[bytes]) -> bytes | None:
        return b"-LOADING\r\n" if command[0] == b"HGETALL" else ok(command)

    async with puppet(tmp_path, answer) as server:
        store = Store(server.address)
        await store.open()
        record, secret = await Keys(store, clock).create(KeySpec(name="n"))
        assert record.name == "n"
        assert secret
        await store.aclose()


async def test_of_two_readings_the_later_one_stays(clock: ManualClock) -> None:
    """An older reading that arrives late would let a revoked key back in."""

    class Slow:
        """A store whose answers come when the test lets them."""

        def __init__(self) -> None:
            self.answers: list[asyncio.Future[list[bytes]]] = []

        async def call(self, *command: str, again: bool) -> list[bytes]:
            self.answers.append(asyncio.get_running_loop().create_future())
            return await self.answers[-1]

    store = Slow()
    keys = Keys(cast(Store, store), clock)
    readings = []
    for number in (1, 2):
        readings.append(asyncio.create_task(keys.refresh()))
        await eventually(lambda: len(store.answers) == 2 * number)  # noqa: B023
    for answer in store.answers[2:]:
        answer.set_result([])
    await readings[1]
    for answer in store.answers[:2]:
        answer.set_result([b"key_old", b"{}"])
    await readings[0]
    assert not keys.ring.any_created
