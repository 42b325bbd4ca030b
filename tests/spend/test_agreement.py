from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.errors import BudgetStoreUnavailable
from app.spend.remembered import Remembered
from app.store import layout
from app.store.address import Address
from app.store.client import Store
from app.store.ledger import RECORDED, Admitted, Seen
from tests.spend.test_ledger import Gateway, Server, gateway


@pytest.fixture
async def one(store: Store, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(store, tmp_path) as made:
        await made.ledger.make_durable()
        yield made


async def spend(one: Gateway, id: str, nano: int = 10) -> None:
    lease = one.lease(id, nano)
    assert await one.ledger.admit(lease) == Admitted()
    await one.ledger.settle(lease, nano)


async def refused(one: Gateway) -> None:
    with pytest.raises(BudgetStoreUnavailable, match=r"older than the journal.*verify.*rebuild --force.*reset"):
        await one.ledger.admit(one.lease("refused", 1))


class Copied:
    """What stands in a store at one moment."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: list[tuple[bytes, int, bytes]] = []

    async def take(self) -> Copied:
        for key in await self._store.call("KEYS", "*"):
            left = await self._store.call("PTTL", key)
            self._rows.append((key, max(0, left), await self._store.call("DUMP", key)))
        return self

    async def put_back(self) -> None:
        await self._store.call("FLUSHALL")
        for key, left, value in self._rows:
            await self._store.call("RESTORE", key, left, value)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:  # type: ignore[misc] # a generator
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.kill()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_store_that_was_put_back_lends_nothing_twice(
    server: Server, tmp_path: Path, restarted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A backup, a snapshot of the disk, a replica that lagged: all of it looks whole, and knows less spend than there
    was. It would be spent once more."""
    files, copy = server.socket.parent, tmp_path / "copy"
    store = Store(Address(path=str(server.socket)), timeout=10.0)
    async with gateway(store, tmp_path / "ledger") as one:
        await store.open()
        await one.ledger.tend()
        await one.ledger.make_durable()
        await spend(one, "l1")
        await store.aclose()
        server.kill()
        shutil.copytree(files, copy)
        server.start()
        store = Store(Address(path=str(server.socket)), timeout=10.0)
        await store.open()
        one.calls._store = store
        await spend(one, "l2")
        await one.ledger.tend()
        await store.aclose()
        server.kill()
        shutil.rmtree(files)
        shutil.copytree(copy, files)
        server.start()
        store = Store(Address(path=str(server.socket)), timeout=10.0)
        await store.open()
        one.calls._store = one.calls._leases._store = store
        if not restarted:
            await refused(one)  # before anybody looked: the store itself says so
            assert await one.used() == (10, 0)
    with caplog.at_level(logging.ERROR):
        async with gateway(store, tmp_path / "ledger") as again:
            assert not again.ledger.lends
            await again.ledger.tend()
            await refused(again)
    assert caplog.text.count("tierway ledger rebuild --force") == 1
    await store.aclose()


async def test_it_stays_so_whatever_is_settled_meanwhile(one: Gateway, store: Store, tmp_path: Path) -> None:
    """Free answers are recorded, and what runs is paid: the store must not count itself whole by them."""
    await one.ledger.admit(running := one.lease("running", 5))
    copied = await Copied(store).take()
    await spend(one, "l1")
    await spend(one, "l2")
    await copied.put_back()
    await one.ledger.tend()
    assert one.ledger.agreement.agrees is False
    for number in range(5):
        await one.ledger.settle(one.lease(f"free{number}", 0), 0, RECORDED)
    await one.ledger.settle(running, 5)
    assert await one.used() == (5, 0), "what the copy holds is settled all the same"
    await one.ledger.tend()
    await refused(one)
    assert len(one.outbox.pending()) == 5, "the rest waits, as for an emptied store"
    await store.call("SET", layout.EPOCH, "rebuilt-1")
    await spend(one, "l3")
    await one.ledger.tend()
    assert (one.ledger.agreement.agrees, len(one.outbox.pending())) == (True, 0)
    async with gateway(store, tmp_path) as again:
        assert again.ledger.lends and again.calls.seen.number > 0
        await spend(again, "l4")


async def test_books_that_an_operator_ended_do_not_come_back(one: Gateway, store: Store, tmp_path: Path) -> None:
    """A copy from before a reset has an epoch that was begun by hand as well. It is no new one."""
    await store.call("SET", layout.EPOCH, "reset-1")
    await spend(one, "l1")
    copied = await Copied(store).take()
    await store.call("SET", layout.EPOCH, "reset-2")
    await spend(one, "l2")
    await copied.put_back()
    await refused(one)
    async with gateway(store, tmp_path) as again:
        await refused(again)


async def test_who_never_saw_the_store_takes_it_as_it_is(one: Gateway, store: Store, tmp_path: Path) -> None:
    copied = await Copied(store).take()
    await spend(one, "l1")
    await copied.put_back()
    async with gateway(store, tmp_path / "elsewhere") as other:
        await other.ledger.make_durable()
        await spend(other, "l2")
        await spend(other, "l3")
        await refused(one)


async def test_what_may_be_lost_is_not_missed(store: Store, tmp_path: Path) -> None:
    """Where nobody limits spend the server may forget its last second when the power fails. That is no reason to refuse
    anything, neither then nor when there is a limit."""
    async with gateway(store, tmp_path) as one:
        copied = await Copied(store).take()
        await spend(one, "l1")
        assert one.calls.seen.number == 0
        await copied.put_back()
        await spend(one, "l2")
        await one.ledger.make_durable()
        await spend(one, "l3")
        assert one.calls.seen.number == 1


async def test_one_name_for_all_that_share_a_folder(one: Gateway, store: Store, tmp_path: Path) -> None:
    """What one of them saw is known to whoever starts next."""
    copied = await Copied(store).take()
    async with gateway(store, tmp_path) as two:
        await two.ledger.make_durable()
        assert two.calls.seen.name == one.calls.seen.name
        await spend(one, "l1")
        await spend(two, "l2")
        assert (one.calls.seen.number, two.calls.seen.number) == (1, 2)
        await two.ledger.aclose()
    await copied.put_back()
    async with gateway(store, tmp_path) as again:
        await refused(again)


async def test_a_crash_at_any_point_refuses_nothing(store: Store, tmp_path: Path) -> None:
    """Whatever of what was acknowledged had been written down when it died: the store has it."""
    for stage in range(4):
        async with gateway(store, tmp_path) as one:
            await one.ledger.make_durable()
            await spend(one, f"a{stage}", 1)
            if stage > 0:
                await one.ledger.tend()
            await one.ledger.admit(one.lease(f"b{stage}", 1))
            if stage > 1:
                await one.calls.settle(one.lease(f"b{stage}", 1), 1, "settled")  # and died before it heard of it
            if stage > 2:
                await one.ledger.aclose()
        async with gateway(store, tmp_path) as again:
            await again.ledger.tend()
            assert again.ledger.lends
            await spend(again, f"c{stage}", 1)


async def test_what_is_written_late_is_of_its_own_books(one: Gateway, store: Store, tmp_path: Path) -> None:
    """An operator begins new books while a number of the old ones is being written: it must not count for the new."""
    await spend(one, "l1")
    await spend(one, "l2")
    old = one.ledger.agreement._known()
    await store.call("FLUSHALL")
    await store.call("SET", layout.EPOCH, "reset-1")
    await spend(one, "l3")
    Remembered(tmp_path).note(old)
    assert one.calls.seen == Seen(one.calls.seen.name, 1)
    async with gateway(store, tmp_path) as again:
        await spend(again, "l4")
        assert old.epoch in again.ledger.agreement._past
