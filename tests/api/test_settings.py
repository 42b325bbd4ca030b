"""The outside of settings at run time and of going back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from app.api.settings import settings_router
from app.config.settings import Settings, UpstreamSettings
from app.gateway.tuning import Tuning
from app.store.client import Store
from tests.api.admins import DOOR, administered
from tests.api.site import error
from tests.gateway.test_runtime import runtime

SETTINGS = Settings(upstreams={"gpu": UpstreamSettings("gpu", "vllm", ("http://gpu:8000",), local=True)})


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    one = runtime(store)
    tuning = Tuning(one.versions, SETTINGS, lambda name: True, lambda settings: None)
    async with administered(settings_router(DOOR, one, tuning)) as client:
        yield client


async def put(client: httpx2.AsyncClient, name: str, value: Any) -> dict[str, Any]:
    reply = await client.put(f"/admin/settings/{name}", json={"value": value})
    assert reply.status_code == 200, reply.text
    (state,) = reply.json()["data"]
    assert isinstance(state, dict)
    return state


async def test_a_setting_is_put_and_taken_back(client: httpx2.AsyncClient) -> None:
    state = {"name": "strategy", "value": "quality", "configured": "cost", "changed": True}
    assert await put(client, "strategy", "quality") == state
    listed = (await client.get("/admin/settings")).json()
    assert listed["object"] == "list" and state in listed["data"]
    back = (await client.delete("/admin/settings/strategy")).json()
    assert back["data"] == [{**state, "value": "cost", "changed": False}]
    assert (await put(client, "concurrency.gpu", 3))["value"] == 3


async def test_several_at_once_are_one_version(client: httpx2.AsyncClient) -> None:
    reply = await client.put("/admin/settings", json={"target_local": 0.2, "breaker": {"failures": 2}})
    assert {each["name"] for each in reply.json()["data"]} == {"target_local", "breaker"}
    (version,) = (await client.get("/admin/versions")).json()["data"]
    assert (version["number"], version["settings"]) == (1, {"target_local": 0.2, "breaker": {"failures": 2}})
    assert (version["action"], version["subject"], version["file"]) == ("setting.put", "target_local, breaker", None)


async def test_an_earlier_version_comes_back(client: httpx2.AsyncClient) -> None:
    await put(client, "strategy", "quality")
    await put(client, "strategy", "privacy")
    restored = (await client.post("/admin/versions/1/restore")).json()
    assert (restored["number"], restored["settings"]) == (3, {"strategy": "quality"})
    assert (await client.post("/admin/versions/0/restore")).json()["settings"] == {}
    assert len((await client.get("/admin/versions", params={"limit": 2})).json()["data"]) == 2
    for path, status in (("99", 404), ("-1", 422), ("x", 422)):
        assert (await client.post(f"/admin/versions/{path}/restore")).status_code == status


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/strategy", {"value": "cheap"}, 422, "strategy"),
        ("/strategy", {}, 422, "value"),
        ("/strategy", {"value": "cost", "for": 5}, 422, "for"),
        ("/stategy", {"value": "cost"}, 404, "name"),
        ("", {}, 422, None),
        ("", [], 422, None),
        ("", {"strategy": "cost", "x": 1}, 404, "name"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx2.AsyncClient, path: str, body: Any, status: int, param: str | None
) -> None:
    reply = await client.put(f"/admin/settings{path}", json=body)
    assert reply.status_code == status and error(reply)["param"] == param, reply.text
    assert (await client.get("/admin/versions")).json()["data"] == []


async def test_what_there_is_not_cannot_be_taken_back(client: httpx2.AsyncClient) -> None:
    assert (await client.delete("/admin/settings/x")).status_code == 404
