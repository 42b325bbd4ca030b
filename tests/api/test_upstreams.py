"""What an operator sees of upstreams, and what he does to them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from app.api.upstreams import upstreams_router
from app.core.clock import ManualClock
from app.gateway.audit import Audit
from app.gateway.operations import Around, Operations
from app.routing.registry import Registry
from app.store.client import Store
from app.upstreams.health import Health
from tests.api.admins import DOOR, administered
from tests.core.nouns import card
from tests.gateway.fakes import FakeUpstream


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    clock = ManualClock()
    health = Health({}, clock, lambda *change: None)
    around = Around(lambda: {"gpu": FakeUpstream("gpu")}, lambda: Registry((card("gpu/a"),)), lambda: ())
    async with administered(upstreams_router(DOOR, Operations(store, Audit(store, clock), health, around))) as client:
        yield client


async def test_the_list_says_how_each_is_doing(client: httpx2.AsyncClient) -> None:
    reply = await client.get("/admin/upstreams")
    model = {
        "id": "gpu/a",
        "breaker": "closed",
        "open_seconds": 0.0,
        "throttled_seconds": 0.0,
        "first_token_seconds": None,
        "demoted": None,
    }
    upstream = {
        "name": "gpu",
        "kind": "openai",
        "local": True,
        "drained": False,
        "error": None,
        "in_flight": 0,
        "max_concurrency": 32,
        "load": 0.0,
        "models": [model],
        "replicas": [],
    }
    assert reply.json() == {"object": "list", "data": [upstream]}


async def test_drain_resume_and_reset_answer_with_the_new_state(client: httpx2.AsyncClient) -> None:
    drained = (await client.post("/admin/upstreams/gpu/drain")).json()
    assert drained["drained"] and drained["models"][0]["demoted"] == "drained by an operator"
    assert not (await client.post("/admin/upstreams/gpu/resume")).json()["drained"]
    assert (await client.post("/admin/upstreams/gpu/reset")).status_code == 200


async def test_what_is_not_there_is_404_and_without_the_key_401(client: httpx2.AsyncClient) -> None:
    reply = await client.post("/admin/upstreams/nope/drain")
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "not_found"
    for method, path in (("GET", ""), ("POST", "/gpu/drain"), ("POST", "/gpu/resume"), ("POST", "/gpu/reset")):
        url = f"/admin/upstreams{path}"
        reply = await client.request(method, url, headers={"authorization": "Bearer other"})
        assert reply.status_code == 401
    assert not (await client.get("/admin/upstreams")).json()["data"][0]["drained"]
