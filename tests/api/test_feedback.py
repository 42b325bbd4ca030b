"""Without this callers cannot say which answers were no good, or can say so of each other's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from app.access.keys import Keys, KeySpec
from app.api.app import fastapi_app
from app.api.auth import Door
from app.api.feedback import feedback_router
from app.core.clock import ManualClock
from app.core.tasks import TaskOwner
from app.learning.decisions import Decisions
from app.learning.success import Success
from app.store.client import Store
from tests.learning.records import record


@dataclass
class Site:
    client: httpx2.AsyncClient
    keys: Keys
    decisions: Decisions
    success: Success
    counted: list[str]

    async def give(self, body: Any, **headers: str) -> httpx2.Response:
        return await self.client.post("/v1/feedback", json=body, headers=headers)


@pytest.fixture
async def site(store: Store) -> AsyncIterator[Site]:
    clock, counted = ManualClock(), list[str]()
    keys = Keys(store, clock)
    tasks = TaskOwner(lambda name, error: None)
    success = Success(store, clock)
    decisions = Decisions(store, success, tasks, clock)
    door = Door(lambda: keys.ring, admin_key="boss", open_at_first=True)
    app = fastapi_app([feedback_router(door, decisions, counted.append)])
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield Site(client, keys, decisions, success, counted)
    with contextlib.suppress(Exception):
        await tasks.cancel()


def code(reply: httpx2.Response) -> str:
    """Errors have our shape, whatever raised them."""
    body = reply.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    found: str = body["error"]["code"]
    return found


async def test_a_rating_is_taken_and_reaches_the_learned_success(site: Site) -> None:
    site.decisions.note(record(key_id=None))
    reply = await site.give({"request_id": "req-1", "rating": 0, "reason": "wrong", "correction": "42"})
    assert reply.status_code == 202
    assert reply.json() == {
        "object": "feedback",
        "request_id": "req-1",
        "rating": 0.0,
        "kept": ["correction", "reason"],
    }
    assert site.counted == ["bad"]
    found = await site.decisions.get("req-1")
    assert {each.source for each in found.outcomes} == {"finish", "feedback"}
    assert (site.success.quality("gpu/qwen") or 1.0) < 0.1


@pytest.mark.parametrize(("rating", "word"), [(1, "good"), (0.5, "neutral"), (0.0, "bad")])
async def test_ratings_are_counted_by_a_word(site: Site, rating: float, word: str) -> None:
    """A label of any number would fill Prometheus."""
    site.decisions.note(record(key_id=None))
    assert (await site.give({"request_id": "req-1", "rating": rating})).json()["kept"] == []
    assert site.counted == [word]


async def test_only_ones_own_requests_can_be_rated(site: Site) -> None:
    mine, secret = await site.keys.create(KeySpec(name="mine"))
    _, other = await site.keys.create(KeySpec(name="other"))
    site.decisions.note(record(key_id=mine.id))
    body = {"request_id": "req-1", "rating": 1}
    refused = await site.give(body, authorization=f"Bearer {other}")
    assert (refused.status_code, code(refused)) == (404, "not_found")
    assert site.counted == []
    assert (await site.give(body, authorization=f"Bearer {secret}")).status_code == 202


async def test_without_a_key_nothing_is_read(site: Site) -> None:
    """Not even whether the body is any good."""
    await site.keys.create(KeySpec(name="mine"))
    for content in (b"{", b'{"request_id": "req-1", "rating": 1}'):
        reply = await site.client.post("/v1/feedback", content=content, headers={"content-type": "application/json"})
        assert (reply.status_code, code(reply)) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"request_id": "req-1"}, "rating"),
        ({"request_id": "req-1", "rating": 1.01}, "rating"),
        ({"request_id": "req-1", "rating": -0.1}, "rating"),
        ({"request_id": "req-1", "rating": True}, "rating"),
        ({"request_id": "req-1", "rating": "1"}, "rating"),
        ({"request_id": "req-1", "rating": None}, "rating"),
        ({"rating": 1}, "request_id"),
        ({"request_id": "", "rating": 1}, "request_id"),
        ({"request_id": "a b", "rating": 1}, "request_id"),
        ({"request_id": "x" * 129, "rating": 1}, "request_id"),
        ({"request_id": 5, "rating": 1}, "request_id"),
        ({"request_id": "req-1", "rating": 1, "reason": ""}, "reason"),
        ({"request_id": "req-1", "rating": 1, "reason": "x" * 2049}, "reason"),
        ({"request_id": "req-1", "rating": 1, "correction": "x" * 16385}, "correction"),
        ({"request_id": "req-1", "rating": 1, "stars": 5}, "stars"),
        ([], None),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(site: Site, body: Any, param: str | None) -> None:
    reply = await site.give(body)
    assert (reply.status_code, code(reply)) == (422, "invalid_value")
    assert reply.json()["error"]["param"] == param
    assert site.counted == []


@pytest.mark.parametrize("content", [b"{", b'{"request_id": "req-1", "rating": NaN}', b"\xff"])
async def test_what_is_no_json_is_refused(site: Site, content: bytes) -> None:
    reply = await site.client.post("/v1/feedback", content=content, headers={"content-type": "application/json"})
    assert reply.status_code in (400, 422)
    assert code(reply) in ("invalid_json", "invalid_value")


async def test_json_that_is_not_called_json_is_told_what_to_send(site: Site) -> None:
    """What curl sends by default; other sites' forms send the same, so it is not taken for JSON."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    reply = await site.client.post("/v1/feedback", content=b'{"request_id": "req-1", "rating": 1}', headers=form)
    assert reply.status_code == 422 and "content-type: application/json" in reply.json()["error"]["message"]


async def test_words_no_store_can_hold_are_refused_and_not_a_crash(site: Site) -> None:
    site.decisions.note(record(key_id=None))
    content = b'{"request_id": "req-1", "rating": 1, "reason": "\\ud800"}'
    reply = await site.client.post("/v1/feedback", content=content, headers={"content-type": "application/json"})
    assert reply.status_code in (400, 422)
    assert code(reply) in ("invalid_json", "invalid_value")


async def test_a_store_that_is_away_is_said(site: Site, store: Store) -> None:
    await store.aclose()
    reply = await site.give({"request_id": "req-1", "rating": 1})
    assert (reply.status_code, code(reply)) == (503, "store_unavailable")
    assert reply.headers["retry-after"] == "1"


async def test_the_endpoint_is_documented(site: Site) -> None:
    document = (await site.client.get("/openapi.json")).json()
    assert "202" in document["paths"]["/v1/feedback"]["post"]["responses"]
