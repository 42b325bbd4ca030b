"""The outside of flags: what an operator in a hurry types, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from app.api.flags import flags_router
from app.config.features import FEATURES
from app.store.client import Store
from tests.api.admins import DOOR, administered
from tests.api.site import error
from tests.gateway.test_switches import Replica, started


@pytest.fixture
async def replica(store: Store) -> Replica:
    return await started(store, {"FEATURE_SHADOW": "12.5%"})


@pytest.fixture
async def client(replica: Replica) -> AsyncIterator[httpx2.AsyncClient]:
    async with administered(flags_router(DOOR, replica.switches)) as client:
        yield client


async def test_flags_are_shown_with_what_off_means(client: httpx2.AsyncClient) -> None:
    listed = (await client.get("/admin/flags")).json()
    flags = {flag["name"]: flag for flag in listed["data"]}
    assert listed["object"] == "list" and flags.keys() == FEATURES.keys()
    assert flags["STREAMING"]["value"] is True and flags["SHADOW"]["value"] == "12.5%"
    assert all(flag["off_means"] for flag in flags.values())


async def test_a_flag_is_put_and_taken_back(client: httpx2.AsyncClient) -> None:
    put = (await client.put("/admin/flags/STREAMING", json={"value": "10%"})).json()
    assert (put["value"], put["start"], put["locked"]) == ("10%", True, False)
    assert put["changes"] == [{"scope": None, "who": None, "value": "10%", "counts": True}]
    back = (await client.delete("/admin/flags/STREAMING")).json()
    assert (back["value"], back["changes"]) == (True, [])


@pytest.mark.parametrize("scope", ["agent", "key", "tenant"])
async def test_a_flag_is_put_for_some(client: httpx2.AsyncClient, scope: str) -> None:
    put = (await client.put("/admin/flags/streaming", json={"value": False, scope: "a b"})).json()
    assert put["value"] is True
    assert put["changes"] == [{"scope": scope, "who": "a b", "value": False, "counts": True}]
    back = (await client.delete("/admin/flags/STREAMING", params={scope: "a b"})).json()
    assert back["changes"] == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "value"),
        ({"value": None}, "value"),
        ({"value": 1}, "value"),
        ({"value": "110%"}, "value"),
        ({"value": "maybe"}, "value"),
        ({"value": True, "agents": "x"}, "agents"),
        ({"value": True, "agent": ""}, "agent"),
        ({"value": True, "agent": "a\nb"}, "agent"),
        ({"value": True, "agent": "a", "key": "b"}, "key"),
    ],
)
async def test_what_is_wrong_is_named(client: httpx2.AsyncClient, replica: Replica, body: Any, param: str) -> None:
    reply = await client.put("/admin/flags/STREAMING", json=body)
    assert reply.status_code == 422 and error(reply)["param"] == param
    assert replica.versions.current.number == 0


async def test_what_is_no_flag_is_not_found(client: httpx2.AsyncClient) -> None:
    reply = await client.put("/admin/flags/STREMING", json={"value": True})
    assert reply.status_code == 404 and "did you mean STREAMING" in error(reply)["message"]
    assert (await client.delete("/admin/flags/x")).status_code == 404
    assert (await client.delete("/admin/flags/STREAMING", params={"agent": "a", "key": "b"})).status_code == 422
