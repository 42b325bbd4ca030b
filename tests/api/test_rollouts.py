"""How an operator starts, watches, stops and re-arms a rollout."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from app.api.rollouts import rollouts_router
from app.core.clock import ManualClock
from app.gateway.audit import Audit
from app.gateway.rollback import Rollouts
from app.routing.registry import Registry
from app.store import layout
from app.store.client import Store
from tests.api.admins import DOOR, administered
from tests.core.nouns import card
from tests.gateway.test_rollback import record

REGISTRY = Registry((card("gpu/new"), card("gpu/old")), {"fresh": "gpu/new"})
CANARY = {"kind": "canary", "share": "10%", "to": {"model": "gpu/new"}}


@pytest.fixture
def rollouts(store: Store) -> Rollouts:
    return Rollouts(store, Audit(store, ManualClock()), lambda *share: None)


@pytest.fixture
async def client(rollouts: Rollouts) -> AsyncIterator[httpx2.AsyncClient]:
    async with administered(rollouts_router(DOOR, rollouts, lambda: REGISTRY)) as client:
        yield client


async def put(client: httpx2.AsyncClient, body: dict[str, Any], name: str = "new") -> httpx2.Response:
    return await client.put(f"/admin/rollouts/{name}", json=body)


async def test_a_rollout_is_started_and_shown(client: httpx2.AsyncClient) -> None:
    state = (await put(client, {**CANARY, "steps": True, "share": "80%", "dwell": 60})).json()
    assert state == (await client.get("/admin/rollouts")).json()["data"][0]
    assert (state["name"], state["status"], state["kind"]) == ("new", "running", "canary")
    assert (state["share"], state["shadow"], state["last_share"]) == ("20%", True, "80%")
    assert (state["to"], state["steps"]) == ({"model": "gpu/new"}, ["20% shadow", "50%", "80%"])
    assert (state["dwell"], state["rollback"], state["reason"]) == (60.0, True, "an operator said so")
    nothing = {"answers": 0, "failed": None, "first_token_p95_seconds": None, "quality": None}
    assert state["arms"] == {"control": nothing, "treatment": nothing}
    assert state["evidence"] == {"failed": 1.0, "first": 1.0, "score": 1.0}


async def test_the_arms_are_shown_with_what_they_did(
    client: httpx2.AsyncClient, rollouts: Rollouts, store: Store
) -> None:
    await put(client, CANARY)
    for number in range(18):
        rollouts.observe(record("new:control"))
        rollouts.scored("new:control", 0.5 + number % 2)
    for number in range(2):
        rollouts.observe(record("new:treatment", failed=not number))
    await store.call("DEL", layout.ROLLOUTS_TURN)
    await rollouts.tick()
    state = (await client.get("/admin/rollouts")).json()["data"][0]
    assert state["arms"]["control"] == {
        "answers": 18,
        "failed": 0.0,
        "first_token_p95_seconds": 0.25,
        "quality": 0.75,
    }
    assert state["arms"]["treatment"]["failed"] == 0.5 and state["arms"]["treatment"]["quality"] is None
    assert state["evidence"]["failed"] > 1


async def test_what_is_not_said_stays(client: httpx2.AsyncClient) -> None:
    """To arm it again, or to change its share, needs no more than the share."""
    await put(client, CANARY)
    assert (await put(client, {"share": "0%"})).json()["status"] == "off"
    state = (await put(client, {"share": "25%", "rollback": None})).json()
    assert (state["status"], state["share"], state["to"]) == ("running", "25%", {"model": "gpu/new"})


async def test_a_model_may_be_given_by_any_of_its_names(client: httpx2.AsyncClient) -> None:
    for name in ("new", "fresh"):
        assert (await put(client, {**CANARY, "to": {"model": name}})).json()["to"] == {"model": "gpu/new"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"to": {"model": "gpu/nwe"}}, "to.model"),
        ({"to": {"model": "auto"}}, "to.model"),
        ({"to": {"model": 5}}, "to.model"),
        ({"to": {}}, "to"),
        ({"to": []}, "to"),
        ({"to": {"strategy": "best"}}, "to.strategy"),
        ({"to": {"strategy": "cost", "colour": 1}}, "to.colour"),
        ({"share": "110%"}, "share"),
        ({"share": 10}, "share"),
        ({"kind": "bold"}, "kind"),
        ({"steps": ["50%", "20%"]}, "steps"),
        ({"dwell": 0}, "dwell"),
        ({"colour": 1}, "colour"),
    ],
)
async def test_what_makes_no_sense_is_422_and_names_the_field(
    client: httpx2.AsyncClient, change: dict[str, Any], param: str
) -> None:
    reply = await put(client, {**CANARY, **change})
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_value", param)
    assert (await client.get("/admin/rollouts")).json() == {"object": "list", "data": []}


async def test_a_new_one_needs_to_be_said_whole(client: httpx2.AsyncClient) -> None:
    reply = await put(client, {"share": "10%"})
    assert reply.status_code == 422 and reply.json()["error"]["param"] == "kind"


@pytest.mark.parametrize("name", ["a:b", "a,b", "a%20b", "-x", "x" * 65])
async def test_names_are_plain(client: httpx2.AsyncClient, name: str) -> None:
    assert (await put(client, CANARY, name)).status_code == 422


async def test_nobody_else_may(client: httpx2.AsyncClient) -> None:
    headers = {"authorization": "Bearer other"}
    assert (await client.get("/admin/rollouts", headers=headers)).status_code == 401
    assert (await client.put("/admin/rollouts/new", json=CANARY, headers=headers)).status_code == 401
    assert (await client.get("/admin/rollouts")).json()["data"] == []
