"""Without these an operator cannot see what was spent, or anybody can."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from app.api.costs import costs_router
from app.core.clock import ManualClock
from app.store.client import Store
from tests.api.admins import DOOR, administered
from tests.spend.test_costs import settle
from tests.spend.worth import DAY, NOON, attempt, bought, costs_on, record


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    """A gateway that answered three: one yesterday, two today, of which one was paid for and one has no price."""
    clock = ManualClock(NOON - DAY)
    costs = costs_on(store, clock)
    costs.note(record())
    clock.advance(DAY)
    paid = bought(agent="writer")
    await settle(costs, paid.attempts[0], "key-a", "acme", "writer")
    costs.note(paid)
    costs.note(record("acme/free", key_id=None, attempts=(attempt("acme/free", cost_nano=None),)))
    async with administered(costs_router(DOOR, costs)) as client:
        yield client


async def test_costs_by_day(client: httpx2.AsyncClient) -> None:
    found = (await client.get("/admin/costs")).json()
    assert {name: found[name] for name in ("object", "first_day", "last_day", "group_by")} == {
        "object": "list",
        "first_day": "2024-09-28",
        "last_day": "2024-10-04",
        "group_by": "day",
    }
    assert [(each["day"], each["requests"], each["cost_usd"]) for each in found["data"]] == [
        ("2024-10-03", 1, 0.0),
        ("2024-10-04", 2, 7.5e-6),
    ]
    assert (found["total"]["requests"], found["total"]["unpriced"]) == (3, 1)


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("model", ["claude/opus", "acme/free", "gpu/qwen"]),
        ("upstream", ["claude", "acme", "gpu"]),
        ("key", ["key-a", None]),
        ("tenant", ["acme"]),
        ("agent", ["writer", "coder"]),
    ],
)
async def test_costs_by_whom_and_for_what(client: httpx2.AsyncClient, group: str, names: list[str | None]) -> None:
    found = (await client.get("/admin/costs", params={"group_by": group})).json()
    assert [each[group] for each in found["data"]] == names


async def test_what_has_no_known_price_is_null_and_not_nothing(client: httpx2.AsyncClient) -> None:
    found = (await client.get("/admin/costs", params={"group_by": "model"})).json()
    free = next(each for each in found["data"] if each["model"] == "acme/free")
    assert (free["cost_usd"], free["unpriced"], free["savings_usd"], free["coverage"]) == (None, 1, None, 0.0)


async def test_days_that_are_asked_for(client: httpx2.AsyncClient) -> None:
    params = {"from": "2024-10-03", "to": "2024-10-03"}
    found = (await client.get("/admin/costs", params=params)).json()
    assert [each["day"] for each in found["data"]] == ["2024-10-03"]


@pytest.mark.parametrize(
    ("path", "query", "param", "words"),
    [
        ("costs", "from=2024-13-01", "from", "no date like"),
        ("costs", "from=2020-01-01", "from", "kept for 30 days"),
        ("costs", "since=7d", "since", "unknown parameter"),
        ("costs", "form=2024-10-01", "form", "did you mean from?"),
        ("costs", "group_by=hour", "group_by", "'model', 'upstream'"),
        ("costs", "zzzzzzzz=1", "zzzzzzzz", "there are: from, group_by, to"),
        ("report", "since=90d", "since", "from 1d to 30d"),
        ("report", "since=7d&to=2024-10-01", "since", "either"),
        ("report", "goal=nothing", "goal", "no goal"),
        ("report", "format=pdf", "format", "'json'"),
        ("report", "investment=-1", "investment", "at least 0"),
        ("report", "per_month=inf", "per_month", "finite number"),
        ("report", "first=2024-10-01", "first", "unknown parameter"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    client: httpx2.AsyncClient, path: str, query: str, param: str, words: str
) -> None:
    """A parameter that is ignored is a report on something else."""
    reply = await client.get(f"/admin/{path}?{query}")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (422, "invalid_value", param)
    assert words in error["message"]


async def test_a_report_as_json(client: httpx2.AsyncClient) -> None:
    query = "since=2d&goal=local_share=0.3&goal=quality=0.5&investment=10&per_month=1"
    found = (await client.get(f"/admin/report?{query}")).json()
    assert (found["object"], found["first_day"], found["last_day"]) == ("report", "2024-10-03", "2024-10-04")
    assert found["total"]["coverage"] == pytest.approx(2 / 3)
    assert [(each["goal"], each["verdict"]) for each in found["goals"]] == [
        ("local_share", "met"),
        ("quality", "unknown"),
    ]
    assert found["investment"]["running_usd_per_month"] == 1.0
    assert (await client.get("/admin/report?from=2024-10-04")).json()["total"]["requests"] == 2


@pytest.mark.parametrize(
    ("format", "kind", "start"),
    [("csv", "text/csv", "part,name,measure,value"), ("markdown", "text/markdown", "# Report on 2024-09-28")],
)
async def test_a_report_as_text(client: httpx2.AsyncClient, format: str, kind: str, start: str) -> None:
    reply = await client.get("/admin/report", params={"format": format})
    assert reply.headers["content-type"] == f"{kind}; charset=utf-8"
    assert reply.text.startswith(start)


@pytest.mark.parametrize("path", ["costs", "report"])
async def test_only_the_operator_may_look(client: httpx2.AsyncClient, path: str) -> None:
    reply = await client.get(f"/admin/{path}", headers={"authorization": "Bearer other"})
    assert reply.status_code == 401 and "opus" not in reply.text


@pytest.mark.parametrize("path", ["costs", "report"])
async def test_a_store_that_is_away_is_said(client: httpx2.AsyncClient, store: Store, path: str) -> None:
    await store.aclose()
    assert (await client.get(f"/admin/{path}")).status_code == 503
