"""Without this an operator cannot tell why a request was answered by the model it was."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from app.access.keys import KeyRing
from app.api.app import fastapi_app
from app.api.auth import Door
from app.api.decisions import decisions_router
from app.core.clock import ManualClock
from app.core.tasks import TaskOwner
from app.learning.decisions import Decisions
from app.learning.success import Success
from app.store.client import Store
from tests.learning.records import record

ADMIN = {"authorization": "Bearer boss"}


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    """A site whose one request is remembered."""
    clock, tasks = ManualClock(), TaskOwner(lambda name, error: None)
    decisions = Decisions(store, Success(store, clock), tasks, clock)
    decisions.note(record())
    door = Door(lambda: KeyRing(clock), admin_key="boss", open_at_first=True)
    transport = httpx2.ASGITransport(fastapi_app([decisions_router(door, decisions)]), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client
    await tasks.cancel()


async def test_a_decision_is_told_in_words_and_in_figures(client: httpx2.AsyncClient) -> None:
    reply = await client.get("/admin/decisions/req-1", headers=ADMIN)
    assert reply.status_code == 200
    found = reply.json()
    assert found["summary"].startswith("auto (cost) was answered by gpu/qwen: cheapest that can do it.")
    assert (found["model"], found["cost_usd"], found["quality"]) == ("gpu/qwen", 0.0019, 0.8)
    assert [each["model"] for each in found["candidates"]] == ["gpu/qwen", "ollama/rnj", "claude/opus"]


@pytest.mark.parametrize("request_id", ["req-2", "%ED%A0%80", "x" * 5000, "%00", "*"])
async def test_what_is_not_remembered_is_not_found(client: httpx2.AsyncClient, request_id: str) -> None:
    reply = await client.get(f"/admin/decisions/{request_id}", headers=ADMIN)
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer other"}])
async def test_only_the_operator_may_look(client: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    """A decision says who asked."""
    reply = await client.get("/admin/decisions/req-1", headers=headers)
    assert reply.status_code == 401
    assert "gpu/qwen" not in reply.text


async def test_a_store_that_is_away_is_said(client: httpx2.AsyncClient, store: Store) -> None:
    await store.aclose()
    assert (await client.get("/admin/decisions/req-1", headers=ADMIN)).status_code == 503
