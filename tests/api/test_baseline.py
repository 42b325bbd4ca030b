"""How good the local models are next to another, as an operator asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from app.api.baseline import baseline_router
from app.core.clock import ManualClock
from app.gateway.audit import Audit
from app.gateway.baselines import Baselines
from app.learning.outcome import Evidence
from app.learning.success import Success
from app.routing.registry import Registry
from app.store.client import Store
from tests.api.admins import DOOR, administered
from tests.core.nouns import card, paid


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    clock = ManualClock(5.0)
    success = Success(store, clock)
    for model, value in (("claude/opus", 0.8), ("gpu/qwen", 0.6)):
        for _ in range(20):
            success.learn(model, "code", "simple", Evidence(value, 1.0))
    registry = Registry((card("gpu/qwen"), card("gpu/new"), paid("claude/opus")))
    async with administered(
        baseline_router(DOOR, Baselines(store, Audit(store, clock), success), lambda: registry)
    ) as client:
        yield client


async def test_every_model_is_shown_next_to_the_one_that_was_put(client: httpx2.AsyncClient) -> None:
    before = (await client.get("/admin/baseline")).json()
    assert (before["model"], before["at"], before["quality"]) == (None, None, {})
    assert before["models"][0] == {"model": "gpu/qwen", "quality": 0.6, "ratio": None}
    put = (await client.put("/admin/baseline", json={"model": "opus"})).json()
    assert put == (await client.get("/admin/baseline")).json()
    assert put == {
        "object": "baseline",
        "model": "claude/opus",
        "at": 5.0,
        "quality": {"code": 0.8, "all": 0.8},
        "models": [
            {"model": "gpu/qwen", "quality": 0.6, "ratio": 0.75},
            {"model": "gpu/new", "quality": None, "ratio": None},
            {"model": "claude/opus", "quality": 0.8, "ratio": 1.0},
        ],
    }


@pytest.mark.parametrize(
    "body", [{"model": "nope"}, {"model": "auto"}, {"model": "gpu/new"}, {}, {"model": "opus", "x": 1}]
)
async def test_what_cannot_be_a_measure_is_refused(client: httpx2.AsyncClient, body: dict[str, object]) -> None:
    """One that is not there, none, one of which nothing is known, and what nobody understands."""
    assert (await client.put("/admin/baseline", json=body)).status_code == 422
    assert (await client.get("/admin/baseline")).json()["model"] is None


async def test_nobody_else_may(client: httpx2.AsyncClient) -> None:
    headers = {"authorization": "Bearer other"}
    assert (await client.get("/admin/baseline", headers=headers)).status_code == 401
    assert (await client.put("/admin/baseline", headers=headers, json={"model": "opus"})).status_code == 401
