"""After a store is lost these decide whether budgets go on where they were, begin anew, or nobody knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from app.cli.ledger import _size, _verify
from app.core.clock import SystemClock
from app.core.spending import CostCell, Counter, Lease
from app.spend.entries import EXPIRED, RESERVED, SETTLED, Entry, encode, entry_of
from app.spend.epochs import is_by_hand
from app.spend.journal import Journal, entries
from app.spend.ledger import Ledger
from app.spend.outbox import Outbox
from app.spend.remembered import Remembered
from app.store import layout
from app.store.client import Store
from app.store.ledger import Admitted, Denied, LedgerStore, Settled
from app.store.opening import open_store
from app.store.restoring import LedgerKeys
from tests.cli.conftest import Run

DAY_MS = 86_400_000
USD = 10**9
CELL = CostCell(layout.key("costs", "2026-11-20"), "n", 1, 30 * 86_400)
STARTS_MS = int(SystemClock().now() * 1000) // DAY_MS * DAY_MS
DAY = Counter(
    "global:*:day", "global", "day", layout.key("spend-day", "g"), 10 * USD, STARTS_MS, STARTS_MS + 2 * DAY_MS
)
TOTAL = Counter("key:k:total", "key", "total", layout.key("spend", "k"), 5 * USD, 0, 0)
COUNTERS = (DAY, TOTAL)

Work = Callable[[Ledger, LedgerStore, Store], Coroutine[Any, Any, None]]


def lease(id: str, held: int, epoch: str) -> Lease:
    return Lease(id, f"root-{id}", "claude/x", held, COUNTERS, epoch)


class Gateway:
    """What a gateway does with its ledger, in the data folder of the command's store."""

    def __init__(self, store: Path, folder: Path) -> None:
        self.data_dir = store
        self.folder = folder

    def does(self, work: Work) -> None:
        async def whole() -> None:
            async with open_store(None, self.data_dir, timeout=10.0) as store:
                journal, outbox = Journal(self.folder, SystemClock()), Outbox(self.folder)
                await journal.open()
                await outbox.open(journal.left_over)
                calls = LedgerStore(store)
                ledger = Ledger(
                    calls,
                    SystemClock(),
                    journal,
                    outbox,
                    on_crash="full",
                    over_reserved=lambda nano: None,
                    alert=lambda counters: None,
                )
                await ledger.open(Remembered(self.folder))
                try:
                    await work(ledger, calls, store)
                finally:
                    await journal.aclose()
                    await outbox.aclose()

        asyncio.run(whole())


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path / "data", tmp_path / "data" / "ledger")


async def spend(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
    """One settled, one that nobody will settle, one corrected."""
    for id, held in (("a", USD), ("b", 2 * USD)):
        assert isinstance(await ledger.admit(lease(id, held, ledger.epoch)), Admitted)
    await ledger.settle(ledger.open_leases["a"], USD // 2, cells=[CELL])


async def empty(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
    await store.call("FLUSHALL")


async def nothing(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
    """It only starts."""


def verified(run: Run, *options: str) -> dict[str, Any]:
    result = run("ledger", "verify", "--json", *options)
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if found["ok"] else 1)
    return found


def test_books_that_agree(run: Run, gateway: Gateway) -> None:
    gateway.does(spend)
    found = verified(run)
    assert found["ok"] and (found["leases"], found["open"], found["counters"], found["waiting"]) == (2, 1, 2, 0)
    told = run("ledger", "verify")
    assert told.exit_code == 0 and "The counters hold what the journals say." in told.stdout


def test_a_difference_is_shown_and_is_the_exit_status(run: Run, gateway: Gateway) -> None:
    async def cheat(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
        await store.call("HINCRBY", DAY.key, "u", -USD // 4)
        await store.call("HINCRBY", TOTAL.key, "h", 7)
        await store.call("HSET", layout.key("spend", "unknown"), "u", 5)

    gateway.does(spend)
    gateway.does(cheat)
    found = verified(run)
    assert [(each["id"], each["what"], each["found"] - each["low"]) for each in found["differences"]] == [
        ("global:*:day", "used", -USD // 4),
        ("key:k:total", "held", 7),
        (None, "used", 5),
    ]
    told = run("ledger", "verify")
    rows = [line.split() for line in told.stdout.splitlines()]
    assert told.exit_code == 1 and ["global:*:day", "used", "0.500000000", "0.250000000"] in rows


def test_gateways_may_go_on_while_it_looks(run: Run, gateway: Gateway) -> None:
    """Else nobody could ever verify a service that is used."""

    async def traffic(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
        async def caller(name: str) -> None:
            for number in range(1_000_000):
                held = lease(f"{name}-{number}", 1_000, ledger.epoch)
                assert isinstance(await ledger.admit(held), Admitted)
                await asyncio.sleep(0.001)
                if number % 3:
                    assert await ledger.extend(held, 500)
                await ledger.settle(held, number % 2_000)

        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(caller(str(number))) for number in range(8)]
            await asyncio.sleep(0.1)
            for _ in range(4):
                found = await _verify(LedgerKeys(store), [gateway.folder], "full")
                assert found["ok"] and found["leases"], found["differences"]
            for each in callers:
                each.cancel()

    gateway.does(traffic)


def test_journals_of_several_machines_belong_together(run: Run, gateway: Gateway, tmp_path: Path) -> None:
    other = Gateway(gateway.data_dir, tmp_path / "other" / "ledger")

    async def more(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
        held = lease("c", USD, ledger.epoch)
        await ledger.admit(held)
        await ledger.settle(held, USD)

    gateway.does(spend)
    other.does(more)
    assert not verified(run)["ok"]
    assert verified(run, "--journal", str(tmp_path / "data"), "--journal", str(tmp_path / "other" / "ledger"))["ok"]


def test_what_was_cut_or_is_not_ours_is_told(run: Run, gateway: Gateway) -> None:
    gateway.does(spend)
    foreign = lease("z", 5, "e")
    foreign.counters = (DAY._replace(key=layout.KEYS),)
    garbage = b"what is this\n" + encode(entry_of(SETTLED, foreign, 5, 5)) + b'{"op":"S'
    (gateway.folder / "journal-x-000001.jsonl").write_bytes(garbage)
    found = verified(run)
    assert found["ok"] and (found["foreign"], found["torn"], found["damaged"]) == (2, 1, 0)
    assert "2 foreign" in run("ledger", "verify").stdout


def test_without_journals_or_books_there_is_nothing_to_compare(run: Run, gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "emptied" in run("ledger", "verify").stderr
    gateway.does(nothing)
    result = run("ledger", "verify")
    assert result.exit_code == 1 and "no journal files" in result.stderr and result.stdout == ""
    assert run("ledger", "verify", "--journal", str(tmp_path / "nowhere")).exit_code == 2
    (gateway.folder / "journal-x-000001.jsonl").mkdir()
    result = run("ledger", "verify")
    assert result.exit_code == 1 and "cannot be read" in result.stderr


def test_an_emptied_store_is_restored_and_gateways_go_on(run: Run, gateway: Gateway) -> None:
    async def settle_late(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
        assert await ledger.used(COUNTERS) == [(5 * USD // 2, 0), (5 * USD // 2, 0)]
        assert await store.call("HGET", CELL.key, "n") == b"1"
        assert isinstance(await ledger.admit(lease("c", 3 * USD, ledger.epoch)), Denied)  # of 5 USD 2.5 are left
        assert isinstance(await ledger.admit(lease("d", 2 * USD, ledger.epoch)), Admitted)
        assert await calls.settle(lease("b", 0, ledger.epoch), USD, "settled") == Settled(
            True, "expired", -USD, 2 * USD
        )
        assert await ledger.used(COUNTERS) == [(3 * USD // 2, 2 * USD), (3 * USD // 2, 2 * USD)]

    gateway.does(spend)
    gateway.does(empty)
    dry = run("ledger", "rebuild", "--dry-run")
    assert dry.exit_code == 0 and "2 leases make 2 counters" in dry.stdout and "charged 2.000000000 USD" in dry.stdout
    assert "emptied" in run("ledger", "verify").stderr
    asked = run("ledger", "rebuild")  # nobody there to answer
    assert asked.exit_code == 1 and "Write this?" in asked.stdout
    result = run("ledger", "rebuild", "--yes")
    assert result.exit_code == 0 and "The books are restored" in result.stdout
    assert verified(run)["ok"]
    gateway.does(settle_late)


def test_a_store_with_spend_is_only_rebuilt_by_force(run: Run, gateway: Gateway) -> None:
    async def cheat(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
        await store.call("HSET", TOTAL.key, "u", 7)
        await store.call("HSET", layout.key("spend", "unknown"), "u", 5)

    gateway.does(spend)
    gateway.does(cheat)
    refused = run("ledger", "rebuild", "--yes")
    assert refused.exit_code == 1 and "--force" in refused.stderr and not verified(run)["ok"]
    assert run("ledger", "rebuild", "--yes", "--force").exit_code == 0
    found = verified(run)
    assert found["ok"] and (found["open"], found["counters"]) == (0, 2)


def test_a_rebuild_that_broke_off_can_be_given_again(run: Run, gateway: Gateway) -> None:
    async def half(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
        await store.call("FLUSHALL")
        await store.call("HSET", TOTAL.key, "u", 7)

    gateway.does(spend)
    gateway.does(half)
    assert run("ledger", "rebuild", "--yes").exit_code == 0 and verified(run)["ok"]


def test_after_another_gateway_began_on_the_emptied_store(run: Run, gateway: Gateway, tmp_path: Path) -> None:
    """It knew nothing of what was spent before. All take what was rebuilt for theirs."""
    fresh = Gateway(gateway.data_dir, tmp_path / "fresh")

    async def admit_one(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
        assert is_by_hand(ledger.epoch) and isinstance(await ledger.admit(lease("n", 1, ledger.epoch)), Admitted)
        await ledger.settle(ledger.open_leases["n"], 1)

    gateway.does(spend)
    gateway.does(empty)
    fresh.does(nothing)
    assert not verified(run)["ok"]
    assert run("ledger", "rebuild", "--yes").exit_code == 0 and verified(run)["ok"]
    gateway.does(admit_one)
    assert verified(run)["ok"]


def test_settlements_in_an_outbox_are_counted_once(run: Run, gateway: Gateway) -> None:
    """The store was lost before it took them."""

    async def settle_in_vain(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
        held = lease("c", USD, ledger.epoch)
        assert isinstance(await ledger.admit(held), Admitted)
        await store.call("FLUSHALL")
        await ledger.settle(held, USD // 4)

    async def replay(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
        await ledger.tend()
        assert await ledger.used((TOTAL,)) == [(11 * USD // 4, 0)]

    gateway.does(spend)
    gateway.does(settle_in_vain)
    assert run("ledger", "rebuild", "--yes").exit_code == 0
    assert verified(run)["waiting"] == 1
    gateway.does(replay)
    found = verified(run)
    assert found["ok"] and found["waiting"] == 0


def test_what_only_the_outbox_knows_is_counted(run: Run, gateway: Gateway) -> None:
    gateway.does(spend)
    gateway.does(empty)
    said = {entry.epoch for entry in entries(gateway.folder)}
    line = encode(entry_of(SETTLED, lease("c", USD, said.pop()), STARTS_MS + 1, USD))
    (gateway.folder / "outbox-0.jsonl").write_bytes(line)
    assert "3 leases make 2 counters" in run("ledger", "rebuild", "--dry-run").stdout


def test_nothing_is_rebuilt_from_nothing(run: Run, gateway: Gateway) -> None:
    gateway.folder.mkdir(parents=True)
    (gateway.folder / "journal-x-000001.jsonl").write_bytes(b"garbage\n")
    result = run("ledger", "rebuild", "--yes")
    assert result.exit_code == 1 and "not one entry" in result.stderr


def test_old_leases_and_counters_are_not_brought_back(run: Run, gateway: Gateway) -> None:
    long_ago = STARTS_MS - 100 * DAY_MS
    old = Lease("o", "r", "m", 7, (DAY._replace(key=layout.key("spend-day", "old"), ends_ms=long_ago),), "begun-1")
    cell = CELL._replace(seconds=5)
    steps: list[Entry] = [
        entry_of(RESERVED, old, long_ago),
        entry_of(EXPIRED, old, long_ago, 7, cells=[cell]),
        entry_of(SETTLED, lease("a", 5, "begun-1"), STARTS_MS, 5),
    ]
    gateway.folder.mkdir(parents=True)
    (gateway.folder / "journal-x-000001.jsonl").write_bytes(b"".join(map(encode, steps)))
    told = run("ledger", "rebuild", "--yes").stdout
    assert "2 leases make 2 counters and 0 days of costs; 0 leases were never settled" in told


def test_a_reset_forgets_and_gateways_go_on(run: Run, gateway: Gateway) -> None:
    async def admit_one(ledger: Ledger, calls: LedgerStore, store: Store) -> None:
        assert await ledger.used(COUNTERS) == [(0, 0), (0, 0)]
        assert isinstance(await ledger.admit(lease("n", 5 * USD, ledger.epoch)), Admitted)
        await ledger.settle(ledger.open_leases["n"], USD)

    gateway.does(spend)
    assert run("ledger", "reset").exit_code == 1 and verified(run)["open"] == 1
    done = run("ledger", "reset", "--yes")
    assert done.exit_code == 0 and "the epoch is reset-" in done.stdout
    assert verified(run)["ok"]
    gateway.does(admit_one)
    found = verified(run)
    assert found["ok"] and found["leases"] == 1  # what was before does not count
    gateway.does(empty)
    assert "1 leases make 2 counters" in run("ledger", "rebuild", "--yes").stdout
    assert verified(run)["ok"]


@pytest.mark.parametrize("command", [[], ["verify"], ["rebuild"], ["reset"]])
def test_help_has_an_example(run: Run, command: list[str]) -> None:
    result = run("ledger", *command, "--help")
    assert result.exit_code == 0 and "Example:" in result.stdout and "tierway ledger" in result.stdout


def test_a_file_may_go_while_it_is_looked_for(tmp_path: Path) -> None:
    assert _size(tmp_path / "nowhere") is None
