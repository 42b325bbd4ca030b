"""An operator who changes a limit relies on it everywhere, at once; who looks at money must see every cent of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from app.core.caller import Caller
from app.core.clock import ManualClock
from app.core.errors import NotFound, Overloaded
from app.core.spending import Counter, Lease
from app.gateway.audit import Audit
from app.gateway.budget_admin import TOPIC, BudgetAdmin, LimitState
from app.spend.budgets import EVERYTHING, Budgets
from app.spend.known import Known
from app.store import layout
from app.store.address import Address
from app.store.broadcast import Broadcast
from app.store.client import Store
from app.store.ledger import Admitted, LedgerStore
from tests.core.nouns import terms
from tests.spend.test_budgets import CI, budgets, rule
from tests.store.live import eventually

QE = "agent:qe-*:day"
USD = 10**9


async def now_at(store: Store) -> float:
    return float((await store.call("TIME"))[0])


class Replica:
    """One gateway's part in it."""

    def __init__(self, store: Store, now: float = 1_795_186_800.0, audit: Audit | None = None) -> None:
        self.store = store
        self.clock = ManualClock(now)
        self.budgets = budgets(rule("global", limit=50), rule("agent", match="qe-*"), rule("session"))
        self.ledger = LedgerStore(store)
        self.admin = BudgetAdmin(
            store, audit or Audit(store, self.clock), self.budgets, self.ledger, lambda: [CI], self.clock
        )

    async def spend(self, lease_id: str, held: int, actual: int | None, agent: str = "qe-1") -> Lease:
        now_ms = int(self.clock.now() * 1_000)
        counters = self.budgets.counters(CI, terms(agent=agent, session="s-1"), now_ms)
        self.budgets.changed = {}
        lease = Lease(lease_id, "req-1", "claude/opus", held, counters, await self.ledger.begin("e"))
        assert await self.ledger.admit(lease, lease_ms=60_000, note=b'{"agent":"qe-1"}') == Admitted()
        if actual is not None:
            await self.ledger.settle(lease, actual, "settled")
        await Known(self.store).remember(self.budgets.agents, self.budgets.sessions, self.clock.now())
        return lease


def limit_of(made: Budgets, id: str = QE) -> int | None:
    found = made.counters(CI, terms(agent="qe-1"), 1_795_186_800_000)
    return next(counter.limit_nano for counter in found if counter.id.partition(" ")[0] == id)


async def test_a_change_reaches_every_gateway_and_is_taken_back(store: Store, valkey: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        other_store = Store(Address(path=str(valkey)))
        await other_store.open()
        stack.push_async_callback(other_store.aclose)
        here, there = Replica(store), Replica(other_store)
        broadcast = Broadcast(other_store, poll=0.2)
        there.admin.follow(broadcast)
        await stack.enter_async_context(broadcast.running())

        assert await here.admin.put(QE, 7 * USD) == LimitState(QE, 7.0, 5.0, True)
        assert limit_of(here.budgets) == 7 * USD
        await eventually(lambda: limit_of(there.budgets) == 7 * USD)
        late = Replica(other_store)
        await late.admin.refresh()
        assert limit_of(late.budgets) == 7 * USD, "also to one that starts later"
        assert await here.admin.remove(QE) == LimitState(QE, 5.0, 5.0, False)
        await eventually(lambda: limit_of(there.budgets) == 5 * USD)


@pytest.mark.parametrize(("id", "before"), [(EVERYTHING, 50.0), ("key:key_ab12:month", 3.0), ("session:*:day", 5.0)])
async def test_every_limit_can_be_changed(store: Store, id: str, before: float) -> None:
    admin = Replica(store).admin
    assert await admin.put(id, 0) == LimitState(id, 0.0, before, True)
    assert await admin.remove(id) == LimitState(id, before, before, False)
    assert await admin.remove(id) == LimitState(id, before, before, False), "again without harm"


async def test_who_changed_what_is_remembered(store: Store) -> None:
    admin = Replica(store).admin
    await admin.put(QE, 7 * USD)
    await admin.put(QE, 7 * USD)
    await admin.put(QE, 500_000_000)
    await admin.remove(QE)
    lines = [(line["action"], line["subject"], line["reason"]) for line in await Audit(store, ManualClock()).entries()]
    assert lines == [
        ("budget.delete", QE, "0.5 USD -> configured"),
        ("budget.put", QE, "7 USD -> 0.5 USD"),
        ("budget.put", QE, "configured -> 7 USD"),
    ]
    assert await store.call("HGET", layout.VERSIONS, TOPIC) == b"3"


@pytest.mark.parametrize(
    ("id", "said"),
    [
        ("agent:qe-1:day", f"did you mean {QE}?"),
        ("key:key_ab13:month", "did you mean key:key_ab12:month?"),
        ("nonsense", "There is no budget 'nonsense'."),
    ],
)
async def test_an_unknown_id_names_the_nearest(store: Store, id: str, said: str) -> None:
    """A limit put beside the one that was meant would look as if it were kept."""
    admin = Replica(store).admin
    for act in (admin.put(id, 1), admin.remove(id)):
        with pytest.raises(NotFound) as caught:
            await act
        assert said in caught.value.message
    assert await store.call("EXISTS", layout.BUDGETS) == 0


async def test_a_change_of_what_is_gone_can_be_taken_back(store: Store) -> None:
    """The entry may have left the file since."""
    await store.call("HSET", layout.BUDGETS, "agent:gone:day", "5")
    assert await Replica(store).admin.remove("agent:gone:day") == LimitState("agent:gone:day", None, None, False)
    assert await store.call("EXISTS", layout.BUDGETS) == 0


async def test_what_cannot_be_read_leaves_what_is_configured(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica(store)
    await store.call("HSET", layout.BUDGETS, QE, "many", b"\xff", "1", EVERYTHING, "9" * 30)
    await replica.admin.refresh()
    assert limit_of(replica.budgets) == 5 * USD and len(caplog.records) == 2
    await replica.admin.put(QE, 1)
    assert (await Audit(store, ManualClock()).entries())[0]["reason"] == "unreadable -> 1e-09 USD"


async def test_who_is_never_first_is_told_so(store: Store) -> None:
    class Beaten(Audit):
        async def change(self, *args: object) -> bool:
            return False

    with pytest.raises(Overloaded):
        await Replica(store, audit=Beaten(store, ManualClock())).admin.put(QE, 1)


async def test_the_list_says_how_each_limit_stands_and_where_it_leads(store: Store) -> None:
    replica = Replica(store, await now_at(store))
    await replica.spend("l1", 2 * USD, USD)
    await replica.spend("l2", USD, None)
    await replica.admin.put(QE, 4 * USD)
    found = {(one.id, one.who): one for one in await replica.admin.states()}
    assert set(found) == {
        (EVERYTHING, None),
        (QE, "qe-1"),
        ("session:*:day", "s-1"),
        ("key:key_ab12:month", "key_ab12"),
    }
    qe = found[QE, "qe-1"]
    assert (qe.scope, qe.match, qe.period, qe.time_zone, qe.shared) == ("agent", "qe-*", "day", "UTC", False)
    assert (qe.limit, qe.configured, qe.changed) == (4.0, 5.0, True)
    assert (qe.used, qe.held, qe.remaining, qe.share) == (1.0, 1.0, 2.0, 0.5)
    assert qe.starts_at is not None and qe.ends_at == qe.starts_at + 86_400
    passed = (replica.clock.now() - qe.starts_at) / 86_400
    assert qe.forecast == pytest.approx(1 / passed, abs=1e-5)
    assert [one.id for one in await replica.admin.states("key")] == ["key:key_ab12:month"]


async def test_what_used_nothing_is_listed_where_it_is_written_down(store: Store) -> None:
    """A hundred agents that slept today only hide those that did not."""
    replica = Replica(store)
    await Known(store).remember({"qe-7"}, {("", "s")}, 1.0)
    assert {(one.id, one.who) for one in await replica.admin.states()} == {
        (EVERYTHING, None),
        ("key:key_ab12:month", "key_ab12"),
    }


async def test_a_limit_that_only_counts_and_one_without_an_end(store: Store) -> None:
    replica = Replica(store)
    replica.budgets = budgets(rule("global", "total", limit=0))
    replica.admin._budgets = replica.budgets
    total, day, _ = await replica.admin.states()
    assert (total.limit, total.remaining, total.share, total.forecast) == (0.0, 0.0, None, None)
    assert (total.starts_at, total.ends_at) == (None, None)
    assert (day.limit, day.configured, day.remaining, day.share, day.forecast) == (None, None, None, None, 0.0)


async def test_every_held_cent_is_explained(store: Store) -> None:
    replica = Replica(store, await now_at(store))
    await replica.spend("l1", 2 * USD, 1)
    await replica.spend("l2", USD, None)
    (one,) = await replica.admin.reservations(10)
    assert (one.id, one.root_id, one.model, one.held) == ("l2", "req-1", "claude/opus", 1.0)
    assert one.about == {"agent": "qe-1"}
    assert {EVERYTHING, f"{QE} (qe-1)", "key:key_ab12:month"} <= set(one.budgets)
    assert abs(one.since - replica.clock.now()) < 60 and 0 < one.expires_at - one.since <= 61
    for state in await replica.admin.states():
        assert state.held == 1.0


@pytest.mark.parametrize("note", [b"", b"{", b"[]"])
async def test_a_note_that_is_none_is_left_out(store: Store, note: bytes) -> None:
    replica = Replica(store)
    counter = Counter("c", "global", "total", "{tierway}:spend:c:0", None, 0, 0)
    lease = Lease("l", "r", "m", 1, (counter,), await replica.ledger.begin("e"))
    await replica.ledger.admit(lease, lease_ms=60_000, note=note)
    assert [one.about for one in await replica.admin.reservations(10)] == [{}]


def test_who_has_no_key_has_no_budget_of_its_own() -> None:
    assert budgets().ids([Caller(budgets=(("day", 1),))]) == [EVERYTHING]
