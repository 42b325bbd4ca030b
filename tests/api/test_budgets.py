"""The outside of limits: who may change them, what is refused, and what the numbers look like."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from app.api.budgets import budgets_router
from app.core.spending import Counter, Lease
from app.gateway.budget_admin import BudgetAdmin
from app.store.client import Store
from tests.api.admins import DOOR, administered
from tests.gateway.test_budget_admin import QE, Replica


@pytest.fixture
def replica(store: Store) -> Replica:
    return Replica(store)


@pytest.fixture
async def client(replica: Replica) -> AsyncIterator[httpx2.AsyncClient]:
    admin: BudgetAdmin = replica.admin
    async with administered(budgets_router(DOOR, admin)) as client:
        yield client


async def test_a_limit_is_changed_and_taken_back(client: httpx2.AsyncClient) -> None:
    reply = await client.put(f"/admin/budgets/{QE}", json={"limit": 7.5})
    assert reply.json() == {"id": QE, "limit": 7.5, "configured": 5.0, "changed": True}
    reply = await client.delete(f"/admin/budgets/{QE}")
    assert reply.json() == {"id": QE, "limit": 5.0, "configured": 5.0, "changed": False}


async def test_an_id_may_hold_a_slash(client: httpx2.AsyncClient, store: Store) -> None:
    await store.call("HSET", "{tierway}:budgets", "agent:a/b:day", "5")
    assert (await client.delete("/admin/budgets/agent:a%2Fb:day")).status_code == 200


async def test_the_list_and_what_one_limit_looks_like(client: httpx2.AsyncClient) -> None:
    found = (await client.get("/admin/budgets", params={"scope": "global"})).json()
    starts = 1_795_132_800
    assert found == {
        "object": "list",
        "data": [
            {
                "id": "global:*:day",
                "scope": "global",
                "match": "*",
                "who": None,
                "period": "day",
                "time_zone": "UTC",
                "shared": True,
                "limit": 50.0,
                "configured": 50.0,
                "changed": False,
                "used": 0.0,
                "held": 0.0,
                "remaining": 50.0,
                "share": 0.0,
                "forecast": 0.0,
                "starts_at": starts,
                "ends_at": starts + 86_400,
            }
        ],
    }


@pytest.mark.parametrize("limit", ["5", None, -1, True, 1e12, [5]])
async def test_what_is_no_limit_is_refused(client: httpx2.AsyncClient, limit: object) -> None:
    reply = await client.put(f"/admin/budgets/{QE}", json={"limit": limit})
    assert reply.status_code == 422, reply.text
    assert (await client.put(f"/admin/budgets/{QE}", json={"limit": 1, "more": 2})).status_code == 422


@pytest.mark.parametrize("text", ['{"limit": NaN}', '{"limit": Infinity}', "{}", ""])
async def test_nor_is_what_is_no_number(client: httpx2.AsyncClient, text: str) -> None:
    reply = await client.put(f"/admin/budgets/{QE}", content=text)
    assert 400 <= reply.status_code < 500 and reply.json()["error"]["code"]


async def test_a_limit_that_is_not_there_is_404_with_the_nearest(client: httpx2.AsyncClient) -> None:
    reply = await client.put("/admin/budgets/agent:qe-1:day", json={"limit": 1})
    assert reply.status_code == 404 and QE in reply.json()["error"]["message"]
    assert (await client.get("/admin/budgets", params={"scope": "nobody"})).status_code == 422


async def test_what_is_held_adds_up(client: httpx2.AsyncClient, replica: Replica) -> None:
    counter = Counter("c", "global", "total", "{tierway}:spend:c:0", None, 0, 0)
    for number in range(3):
        lease = Lease(f"l{number}", "r", "m", 100_000_000, (counter,), await replica.ledger.begin("e"))
        await replica.ledger.admit(lease, lease_ms=60_000, note=b'{"key":"key_ab12"}')
    whole = (await client.get("/admin/reservations")).json()
    assert (whole["held"], whole["has_more"], len(whole["data"])) == (0.3, False, 3)
    assert whole["data"][0]["budgets"] == ["c"] and whole["data"][0]["about"] == {"key": "key_ab12"}
    part = (await client.get("/admin/reservations", params={"limit": 2})).json()
    assert (part["held"], part["has_more"], len(part["data"])) == (0.2, True, 2)


async def test_without_the_admin_key_nothing_is_said_or_done(client: httpx2.AsyncClient) -> None:
    asked = [("GET", "budgets"), ("PUT", f"budgets/{QE}"), ("DELETE", f"budgets/{QE}"), ("GET", "reservations")]
    for method, path in asked:
        reply = await client.request(method, f"/admin/{path}", headers={"authorization": "Bearer other"})
        assert reply.status_code == 401
