from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.errors import StoreUnavailable
from app.store import layout
from app.store.address import Address
from app.store.broadcast import POLL_SECONDS, Broadcast
from app.store.client import Store
from tests.store.live import eventually, ok, puppet


class Reader:
    """Counts how often it was told, and fails as often as it is told to."""

    def __init__(self, *errors: Exception) -> None:
        self.told = 0
        self.errors = list(errors)

    async def __call__(self) -> None:
        self.told += 1
        if self.errors:
            raise self.errors.pop(0)


@contextlib.asynccontextmanager
async def broadcasting(store: Store, poll: float = 60) -> AsyncIterator[Broadcast]:
    broadcast = Broadcast(store, poll=poll)
    async with broadcast.running():
        yield broadcast


async def told(reader: Reader, times: int) -> None:
    await eventually(lambda: reader.told >= times)
    assert reader.told == times


async def subscribed(store: Store, count: int = 1) -> None:
    async def all_there() -> bool:
        _, number = await store.call("PUBSUB", "NUMSUB", layout.CHANGES)
        return bool(number == count)

    await eventually(all_there)


async def test_a_change_reaches_every_gateway_by_message(store: Store, valkey: Path) -> None:
    other = Store(Address(path=str(valkey)))
    await other.open()
    mine, theirs, unrelated = Reader(), Reader(), Reader()
    async with broadcasting(store) as here, broadcasting(other) as there:
        here.watch("keys", mine)
        there.watch("keys", theirs)
        there.watch("flags", unrelated)
        await subscribed(store, 2)
        await told(mine, 1)  # once at the start
        await told(theirs, 1)
        await told(unrelated, 1)
        await here.changed("keys")
        await told(mine, 2)
        await told(theirs, 2)
        await told(unrelated, 1)
    await other.aclose()


async def test_a_lost_message_is_found_by_reading(store: Store) -> None:
    """A revoked key must stop working within 2 s even when the message got lost."""
    assert POLL_SECONDS < 2
    reader = Reader()
    async with broadcasting(store, poll=0.05) as broadcast:
        broadcast.watch("keys", reader)
        await told(reader, 1)
        await store.call("HINCRBY", layout.VERSIONS, "keys", 1)  # a change that nobody published
        await told(reader, 2)
        await asyncio.sleep(0.15)
        assert reader.told == 2  # and no further calls while nothing changes


async def test_a_reader_that_failed_is_told_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise one bad moment of the store leaves a revoked key working for ever."""
    away, broken, well = Reader(StoreUnavailable("x")), Reader(ValueError("bug")), Reader()
    async with broadcasting(store, poll=0.02) as broadcast:
        for topic, reader in (("a", away), ("b", broken), ("b", well)):
            broadcast.watch(topic, reader)
        await told(away, 2)
        await told(broken, 2)
        assert well.told >= 1
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == ["a reader of b failed"]


async def test_it_survives_the_loss_of_its_subscription(store: Store) -> None:
    reader = Reader()
    async with broadcasting(store) as broadcast:
        broadcast.watch("keys", reader)
        await subscribed(store)
        await told(reader, 1)
        await store.call("CLIENT", "KILL", "TYPE", "pubsub")
        await store.call("HINCRBY", layout.VERSIONS, "keys", 1)  # missed while away
        await told(reader, 2)  # read at once after coming back, long before the next poll
        await subscribed(store)
        await broadcast.changed("keys")
        await told(reader, 3)


async def test_it_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    def answer(command: list[bytes]) -> bytes | None:
        return b"*1\r\n$1\r\n7\r\n" if command[0] == b"HMGET" else ok(command)

    async with puppet(tmp_path, answer) as server:
        store = Store(server.address)
        await store.open()
        await server.stop()
        reader = Reader()
        async with broadcasting(store, poll=0.05) as broadcast:
            broadcast.watch("keys", reader)
            await eventually(lambda: not store.healthy)
            assert reader.told == 0
            await server.start()
            await told(reader, 1)
        await store.aclose()


async def test_nothing_is_read_while_nobody_watches(tmp_path: Path) -> None:
    async with puppet(tmp_path) as server:
        store = Store(server.address)
        await store.open()
        async with broadcasting(store, poll=0.01):
            await asyncio.sleep(0.05)
        assert not [command for command in server.heard if command[0] == b"HMGET"]
        await store.aclose()
