"""The watch is what makes limits visible; it must look at the right ones, and never cost requests anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from app.core.caller import Caller
from app.core.clock import ManualClock
from app.core.errors import StoreUnavailable
from app.core.spending import Counter
from app.core.tasks import TaskOwner
from app.spend.alerts import Alerts, Reading
from app.spend.budgets import Budgets
from app.spend.known import Known
from app.spend.watch import Watch, tightest, used_of
from app.store.client import Store
from app.telemetry.money_metrics import Tightest
from tests.core.nouns import terms
from tests.spend.test_budgets import DAY, NOW, budgets, rule
from tests.store.live import eventually, store, valkey

__all__ = ["store", "valkey"]

USD = 10**9


class Desk:
    """A watch over counters that a test fills."""

    def __init__(self, store: Store, made: Budgets) -> None:
        self.clock = ManualClock(NOW / 1_000)
        self.budgets = made
        self.used: dict[str, tuple[int, int]] = {}
        self.asked: list[str] = []
        self.shown: Tightest = {}
        self.told: list[tuple[str, str]] = []
        self.away = False
        self.known = Known(store)
        tasks = TaskOwner(lambda name, error: None)
        alerts = Alerts(store, self.clock, tasks, (0.8, 1.0), lambda *told: self.told.append(told))
        self.watch = Watch(made, self.uses, alerts, self.known, self.show, self.clock)

    async def uses(self, counters: Sequence[Counter]) -> list[tuple[int, int]]:
        if self.away:
            raise StoreUnavailable("It is away.")
        self.asked = [counter.key for counter in counters]
        return [self.used.get(counter.key, (0, 0)) for counter in counters]

    def show(self, found: Tightest) -> None:
        self.shown = found

    def spend(self, used: int, held: int = 0, caller: Caller = Caller(), **told: Any) -> tuple[Counter, ...]:  # noqa: B008 - frozen
        counters = self.budgets.counters(caller, terms(**told), int(self.clock.now() * 1_000))
        self.watch.note(counters)
        self.used.update((counter.key, (used, held)) for counter in counters)
        return counters


async def test_the_gauges_show_the_tightest_of_a_scope_and_period(store: Store) -> None:
    desk = Desk(store, budgets(rule("global", limit=50), rule("agent", limit=5), rule("agent", "month", limit=90)))
    desk.spend(1 * USD, agent="a")
    desk.spend(3 * USD, USD, agent="b")
    desk.spend(2 * USD, agent="c")
    await desk.watch.look()
    assert desk.shown == {
        ("global", "day"): (50 * USD, 2 * USD, 0),
        ("agent", "day"): (5 * USD, 3 * USD, USD),
        ("agent", "month"): (90 * USD, 3 * USD, USD),
    }
    assert desk.told == [("agent", "80%")]


async def test_what_nobody_used_here_is_looked_at_where_it_counts_all_together(store: Store) -> None:
    """A gateway that just started must show that yesterday's traffic has used the month."""
    desk = Desk(store, budgets(rule("global", "month", limit=1), rule("tenant", shared=True), rule("agent")))
    await desk.watch.look()
    assert set(desk.shown) == {("global", "month"), ("tenant", "day")}


async def test_callers_own_limits_and_mere_counts_are_not_watched(store: Store) -> None:
    desk = Desk(store, budgets())
    desk.spend(USD, session="s", session_max_cost_nano=1, max_cost_nano=1)
    await desk.watch.look()
    assert (desk.shown, desk.asked, desk.told) == ({}, [], [])


async def test_a_period_that_is_over_is_left_alone(store: Store) -> None:
    desk = Desk(store, budgets(rule("agent")))
    desk.spend(5 * USD, agent="a")
    await desk.watch.look()
    assert desk.shown
    desk.clock.advance(DAY / 1_000)
    await desk.watch.look()
    assert desk.shown == {}


async def test_a_refusal_is_told_even_if_the_store_is_away_for_a_while(store: Store) -> None:
    desk = Desk(store, budgets(rule("agent", limit=1)))
    counter = next(each for each in desk.spend(700_000_000, agent="a") if each.scope == "agent")
    desk.watch.refused(counter)
    desk.away = True
    with pytest.raises(StoreUnavailable):
        await desk.watch.look()
    desk.away = False
    await desk.watch.look()
    assert desk.told == [("agent", "80%"), ("agent", "100%")]


async def test_who_is_counted_is_made_known_and_kept_till_then(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(store, budgets(rule("agent"), rule("session")))
    desk.spend(1, agent="a", session="s")

    async def fails(*who: Any) -> None:
        desk.budgets.agents.add("b")  # while it waits, another request comes
        raise StoreUnavailable("It is away.")

    with monkeypatch.context() as patched, pytest.raises(StoreUnavailable):
        patched.setattr(desk.known, "remember", fails)
        await desk.watch.look()
    await desk.watch.look()
    agents, sessions = await desk.known.read()
    assert (set(agents), sessions) == ({"a", "b"}, [("", "s")])
    assert not desk.budgets.agents and not desk.budgets.sessions


async def test_of_very_many_the_latest_are_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.spend.watch.LATELY", 3)
    desk = Desk(store, budgets(rule("agent")))
    latest: list[str] = []
    for names in ("abc", "de", ""):
        latest = [desk.spend(1, agent=name)[-1].key for name in names] or latest
        await desk.watch.look()
        assert len(desk.asked) == 3 and set(latest) <= set(desk.asked)


async def test_it_goes_on_by_itself_also_after_the_store_was_away(store: Store) -> None:
    desk = Desk(store, budgets(rule("global", limit=1)))
    desk.away = True
    tasks = TaskOwner(lambda name, error: None)
    tasks.spawn(desk.watch.run(0.001), "watch")
    await asyncio.sleep(0.02)
    desk.away = False
    await eventually(lambda: ("global", "day") in desk.shown)
    await tasks.cancel()


async def test_many_counters_are_asked_for_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.spend.watch.AT_ONCE", 2)
    counters = [Counter(f"c{n}", "agent", "day", f"k{n}", 1, 0, 0) for n in range(5)]
    sizes: list[int] = []

    async def uses(some: Sequence[Counter]) -> list[tuple[int, int]]:
        sizes.append(len(some))
        return [(int(counter.key[1:]), 0) for counter in some]

    assert await used_of(uses, counters) == {f"k{n}": (n, 0) for n in range(5)}
    assert sizes == [2, 2, 1]


def test_a_limit_that_was_refused_counts_by_what_is_used() -> None:
    one, other = (Counter("x", "key", "day", key, USD, 0, 0) for key in "ab")
    readings = [Reading(one, 900_000_000, 0), Reading(other, 100_000_000, 0, refused=True)]
    assert tightest(readings) == {("key", "day"): (USD, 900_000_000, 0)}
