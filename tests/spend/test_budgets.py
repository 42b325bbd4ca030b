"""A limit that does not bind, or binds the wrong one, is found out by the bill."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.schema import BudgetPolicy, BudgetRule
from app.core.caller import ANONYMOUS, Caller
from app.core.spending import Counter
from app.spend.budgets import EVERYTHING, Budgets, dollars, exceeded, is_operators
from app.store import layout
from tests.core.nouns import terms

NOW = int(datetime(2026, 11, 20, 15, tzinfo=UTC).timestamp() * 1_000)
DAY = 86_400_000
TODAY = NOW - NOW % DAY
CI = Caller(key_id="key_ab12", name="ci", tenant="acme", budgets=(("month", 3_000_000_000),))


def rule(scope: str, period: str = "day", limit: float = 5.0, **more: Any) -> BudgetRule:
    return BudgetRule.model_validate({"scope": scope, "period": period, "limit": limit, **more})


def budgets(*rules: BudgetRule, session_days: int = 30, **policy: Any) -> Budgets:
    return Budgets(rules, BudgetPolicy.model_validate(policy), session_days)


def counted(made: Budgets, caller: Caller = ANONYMOUS, now: int = NOW, **told: Any) -> dict[str, Counter]:
    found = made.counters(caller, terms(**told), now)
    assert len({counter.key for counter in found}) == len(found), "one key twice would be charged twice"
    return {counter.id: counter for counter in found}


def keys(made: Budgets, caller: Caller = ANONYMOUS, **told: Any) -> set[str]:
    return {counter.key for counter in counted(made, caller, **told).values()}


def test_without_a_limit_spend_is_counted_all_the_same() -> None:
    made = budgets()
    (everything,) = made.counters(ANONYMOUS, terms(), NOW)
    assert everything[:3] == (EVERYTHING, "global", "day") and everything.limit_nano is None
    assert (everything.starts_ms, everything.ends_ms, everything.keep_ms) == (TODAY, TODAY + DAY, 0)
    assert not made.limited((everything,))


def test_every_scope_that_matches_binds() -> None:
    made = budgets(
        rule("global", limit=50),
        rule("tenant", "month", match="ac*"),
        rule("tenant", "month", match="other"),
        rule("key", match="ci"),
        rule("key", "total", match="key_*"),
        rule("agent", match="qe-*"),
    )
    found = counted(made, CI, agent="qe-1")
    assert {id: counter.limit_nano for id, counter in found.items()} == {
        EVERYTHING: 50_000_000_000,
        "tenant:ac*:month (acme)": 5_000_000_000,
        "key:ci:day (key_ab12)": 5_000_000_000,
        "key:key_*:total (key_ab12)": 5_000_000_000,
        "key:key_ab12:month": 3_000_000_000,
        "agent:qe-*:day (qe-1)": 5_000_000_000,
    }
    assert made.limited(found.values())
    month = found["tenant:ac*:month (acme)"]
    assert (month.starts_ms, month.ends_ms) == (
        datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1_000,
        datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1_000,
    )
    total = found["key:key_*:total (key_ab12)"]
    assert (total.starts_ms, total.ends_ms, total.keep_ms) == (0, 0, 0)


def test_who_is_nobody_is_in_no_scope() -> None:
    """A limit for each agent says nothing of requests without one; the global limit is for these."""
    made = budgets(rule("tenant"), rule("key"), rule("agent"), rule("agent", "month", shared=True), rule("session"))
    assert list(counted(made)) == [EVERYTHING]


@pytest.mark.parametrize(("shared", "same"), [(False, False), (True, True)])
def test_each_that_matches_has_its_own_limit_unless_it_is_shared(shared: bool, same: bool) -> None:
    made = budgets(rule("agent", match="qe-*", shared=shared), rule("tenant", shared=shared))
    one = keys(made, Caller(tenant="a"), agent="qe-1")
    assert (one == keys(made, Caller(tenant="b"), agent="qe-2")) is same
    assert one == keys(made, Caller(tenant="a"), agent="qe-1")
    names = counted(made, Caller(tenant="a"), agent="qe-1")
    assert ("agent:qe-*:day" in names) is same


def test_who_is_named_by_an_entry_is_not_named_twice() -> None:
    assert "agent:qe-1:day" in counted(budgets(rule("agent", match="qe-1")), agent="qe-1")


def test_two_entries_for_one_agent_both_bind() -> None:
    """A narrower entry does not lift a wider one: what may be spent never grows by writing one more limit."""
    made = budgets(rule("agent", limit=1), rule("agent", match="qe-1", limit=9))
    assert sorted(c.limit_nano or 0 for c in counted(made, agent="qe-1").values() if c.scope == "agent") == [
        1_000_000_000,
        9_000_000_000,
    ]


def test_a_keys_budget_and_an_entry_of_the_same_name_are_one_counter_with_the_lower_limit() -> None:
    made = budgets(rule("key", "month", match="key_ab12", limit=2))
    found = counted(made, CI)
    assert found["key:key_ab12:month"].limit_nano == 2_000_000_000
    looser = budgets(rule("key", "month", match="key_ab12", limit=4))
    assert counted(looser, CI)["key:key_ab12:month"].limit_nano == 3_000_000_000


def test_a_request_and_a_session_are_their_callers_own() -> None:
    """Tenants choose session names and request ids; one must not be able to use up the other's limit."""
    made = budgets(rule("session", "total"), rule("session", match="x-*"))
    told: dict[str, Any] = {"session": "s-1", "max_cost_nano": 7, "session_max_cost_nano": 9, "root_id": "r-1"}
    found = counted(made, CI, **told)
    assert {id: counter.limit_nano for id, counter in found.items()} == {
        EVERYTHING: None,
        "key:key_ab12:month": 3_000_000_000,
        "session:*:total (s-1)": 5_000_000_000,
        "session:s-1:total": 9,
        "request:r-1:total": 7,
    }
    other = Caller(key_id="key_other", tenant="acme")  # of the same tenant
    stranger = Caller(key_id="key_ab12", tenant="evil")
    mine = {counter.key for counter in found.values() if counter.scope in ("session", "request")}
    assert mine <= keys(made, other, **told)
    assert not mine & keys(made, stranger, **told)
    assert not mine & keys(made, Caller(key_id="acme"), **told)
    assert not mine & keys(made, **told)


def test_owner_and_session_cannot_be_shifted_into_each_other() -> None:
    made = budgets(rule("session"))
    one = keys(made, Caller(tenant="a"), session="b/c")
    assert not {key for key in one & keys(made, Caller(tenant="a/b"), session="c") if "session" in key}


def test_a_request_limit_binds_all_that_the_request_causes() -> None:
    made = budgets()
    root = keys(made, root_id="r", request_id="r", max_cost_nano=5)
    assert root == keys(made, root_id="r", request_id="child", max_cost_nano=5, depth=1)
    assert root != keys(made, root_id="r2", max_cost_nano=5)


def test_a_session_is_counted_before_somebody_limits_it() -> None:
    made = budgets()
    unlimited = counted(made, session="s")["session:s:total"]
    assert unlimited.limit_nano is None
    assert counted(made, session="s", session_max_cost_nano=1)["session:s:total"].key == unlimited.key


def test_a_session_limit_without_a_session_binds_the_request() -> None:
    """Better a limit on too little than none."""
    assert counted(budgets(), root_id="r", session_max_cost_nano=4)["session:r:total"].limit_nano == 4


def test_sessions_and_requests_are_forgotten_some_time_after_their_last_change() -> None:
    """Else every session that ever was would stay in the store."""
    found = counted(budgets(rule("session", "total"), session_days=7), session="s", max_cost_nano=1)
    for counter in found.values():
        if counter.scope in ("session", "request"):
            days = 7 if counter.scope == "session" else 2
            assert (counter.ends_ms, counter.keep_ms) == (0, days * DAY)


@given(st.text(max_size=300), st.text(max_size=300))
def test_what_a_caller_chose_is_not_in_a_key_and_short_in_an_id(agent: str, session: str) -> None:
    made = budgets(rule("agent"), rule("session"))
    for counter in made.counters(CI, terms(agent=agent, session=session), NOW):
        assert len(counter.id) <= 100 and len(counter.key) <= 100
        assert (
            counter.key.isascii()
            and counter.key.replace("{", "").replace("}", "").replace(":", "").replace("-", "").isalnum()
        )
        assert sum(one.holds(counter.key) for one in layout.PARTITIONS.values()) == 1


def test_long_names_that_begin_alike_are_told_apart() -> None:
    made = budgets(rule("agent"))
    one, other = ("a" * 100 + end for end in "xy")
    assert {id for id in counted(made, agent=one) if "agent" in id} != {
        id for id in counted(made, agent=other) if "agent" in id
    }


def test_keys_live_as_long_as_their_partition_says() -> None:
    made = budgets(rule("global", "month"), rule("global", "total"), rule("session", "total"), rule("session", "day"))
    partitions = {
        counter.period + counter.scope: next(name for name, one in layout.PARTITIONS.items() if one.holds(counter.key))
        for counter in counted(made, session="s", max_cost_nano=1).values()
    }
    assert partitions == {
        "dayglobal": "spend-day",
        "monthglobal": "spend-month",
        "totalglobal": "spend",
        "totalsession": "spend-session",
        "daysession": "spend-day",
        "totalrequest": "spend-request",
    }


def test_days_begin_where_the_entry_says() -> None:
    made = budgets(rule("global"), rule("tenant", time_zone="Asia/Kolkata"), time_zone="Europe/Berlin")
    found = counted(made, CI)
    assert found[EVERYTHING].starts_ms == TODAY - 3_600_000
    assert found["tenant:*:day (acme)"].starts_ms == TODAY - 5.5 * 3_600_000


def test_with_midnight_comes_the_next_counter() -> None:
    made = budgets(rule("agent"))
    before = counted(made, now=TODAY + DAY - 1, agent="a")
    after = counted(made, now=TODAY + DAY, agent="a")
    assert all(after[id].starts_ms == TODAY + DAY and after[id].key != before[id].key for id in after)
    again = counted(made, now=TODAY + DAY - 1, agent="a")  # the store's clock is behind this gateway's
    assert again == before


def test_within_a_period_the_same_counters_are_given_again() -> None:
    """They are made once: this is asked by every request."""
    made = budgets(rule("agent"))
    assert made.counters(CI, terms(agent="a"), NOW) is made.counters(CI, terms(agent="a"), NOW + 1)


def test_a_limit_changed_at_run_time_counts_at_once_and_keeps_its_counter() -> None:
    made = budgets(rule("agent", match="qe-*"))
    before = counted(made, CI, agent="qe-1")
    made.changed = {"agent:qe-*:day": 1, "key:key_ab12:month": 2, EVERYTHING: 0, "agent:gone:day": 3}
    after = counted(made, CI, agent="qe-1")
    assert [counter.limit_nano for counter in after.values()] == [0, 2, 1]
    assert [counter.key for counter in after.values()] == [counter.key for counter in before.values()]
    made.changed = {}
    assert counted(made, CI, agent="qe-1") == before


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents and sessions are whatever callers say; an endless supply of names must not fill the memory."""
    monkeypatch.setattr("app.spend.budgets.REMEMBERED", 3)
    made = budgets(rule("agent"), rule("session"))
    for number in range(9):
        assert len(counted(made, agent=f"a{number}", session=f"s{number}")) == 4
    assert len(made._made) == len(made.agents) == len(made.sessions) == 3


def test_who_was_counted_is_gathered_where_it_has_a_limit_of_its_own() -> None:
    bare, made = budgets(), budgets(rule("agent"), rule("session"))
    for one in (bare, made):
        counted(one, CI, agent="a", session="s")
    assert (bare.agents, bare.sessions) == (set(), set())
    assert (made.agents, made.sessions) == ({"a"}, {("tenant:acme", "s")})


def test_all_limits_are_listed_with_whom_they_count_for() -> None:
    made = budgets(
        rule("tenant", match="acme"),
        rule("tenant", match="t-*"),
        rule("key"),
        rule("agent", match="qe-*"),
        rule("agent", match="solo"),
        rule("agent", "month", shared=True),
        rule("session"),
    )
    found = made.standing(NOW, (CI, Caller(key_id="k2", tenant="t-2")), ("qe-1", "x"), (("tenant:acme", "s"),))
    assert {(one.limit.id, one.who) for one in found} == {
        (EVERYTHING, None),
        ("tenant:acme:day", "acme"),
        ("tenant:t-*:day", "t-2"),
        ("key:*:day", "key_ab12"),
        ("key:*:day", "k2"),
        ("key:key_ab12:month", "key_ab12"),
        ("agent:qe-*:day", "qe-1"),
        ("agent:solo:day", "solo"),
        ("agent:*:month", None),
        ("session:*:day", "s"),
    }
    assert {one.counter for one in found} >= {
        counter for counter in made.counters(CI, terms(agent="qe-1", session="s"), NOW) if is_operators(counter)
    }, "what is listed must be what is counted"


def test_a_limit_is_found_by_its_id() -> None:
    made = budgets(rule("agent", match="qe-*"))
    assert made.ids((CI, ANONYMOUS)) == ["agent:qe-*:day", EVERYTHING, "key:key_ab12:month"]
    for id in made.ids((CI,)):
        limit = made.limit(id, (CI,))
        assert limit is not None and limit.id == id
    assert made.limit("key:key_ab12:month") is None


def test_callers_own_limits_are_no_operators() -> None:
    """Nobody wants to be woken by a caller's limit on one request."""
    made = budgets(rule("session", "total"))
    found = counted(made, session="s", session_max_cost_nano=1, max_cost_nano=1)
    assert [id for id, counter in found.items() if is_operators(counter)] == ["session:*:total (s)"]


def test_who_is_refused_learns_which_limit_and_what_was_used() -> None:
    counter = counted(budgets(rule("agent", match="qe-*")), agent="qe-1")["agent:qe-*:day (qe-1)"]
    error = exceeded(counter, 4_980_000_001, 10_000_000)
    assert error.message == (
        "The agent budget agent:qe-*:day (qe-1) of 5.00 USD has no room for this request: 4.980000001 USD are used"
        " and 0.01 USD held by requests that run. It begins anew at 2026-11-21 00:00 UTC."
    )
    total = counted(budgets(rule("key", "total", limit=0.45)), CI)["key:*:total (key_ab12)"]
    assert exceeded(total, 360_000_000, 0).message == (
        "The key budget key:*:total (key_ab12) of 0.45 USD has no room for this request: 0.36 USD are used."
    )


@given(st.integers(min_value=0, max_value=10**18))
def test_dollars_are_exact(nano: int) -> None:
    whole, _, part = dollars(nano).partition(".")
    assert int(whole) * 10**9 + int(part.ljust(9, "0")) == nano and len(part) >= 2
