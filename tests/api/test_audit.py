"""Who changed what: the newest first, for the operator alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from app.api.audit import audit_router
from app.core.clock import ManualClock
from app.gateway.audit import Audit, Entry
from app.store import layout
from app.store.client import Store
from tests.api.admins import DOOR, administered


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    audit = Audit(store, ManualClock(5.0))
    for number in range(3):
        entry = Entry("admin", "upstream.drain", f"gpu-{number}", "repairs")
        await audit.change(layout.UPSTREAMS, f"drain gpu-{number}", None, b"1", "upstreams", entry)
    async with administered(audit_router(DOOR, audit)) as client:
        yield client


async def test_the_newest_come_first_and_no_more_than_asked_for(client: httpx2.AsyncClient) -> None:
    everything = (await client.get("/admin/audit")).json()
    assert everything["object"] == "list"
    assert [entry["subject"] for entry in everything["data"]] == ["gpu-2", "gpu-1", "gpu-0"]
    assert everything["data"][0] == {
        "at": 5.0,
        "actor": "admin",
        "action": "upstream.drain",
        "subject": "gpu-2",
        "reason": "repairs",
    }
    assert len((await client.get("/admin/audit", params={"limit": 1})).json()["data"]) == 1


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "x"])
async def test_a_limit_that_is_none_is_refused(client: httpx2.AsyncClient, limit: str) -> None:
    assert (await client.get("/admin/audit", params={"limit": limit})).status_code == 422


async def test_nobody_else_sees_them(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/admin/audit", headers={"authorization": "Bearer other"})).status_code == 401
