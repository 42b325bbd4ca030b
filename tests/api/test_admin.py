"""Without these keys cannot be made or ended while the gateway runs, or anybody can."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from app.access.keys import Keys
from app.api.admin import admin_router
from app.core.clock import ManualClock
from app.core.errors import InvalidApiKey
from app.store.client import Store
from tests.api.site import ADMIN, door, error, site


@pytest.fixture
def keys(store: Store) -> Keys:
    return Keys(store, ManualClock())


@contextlib.asynccontextmanager
async def administered(keys: Keys, admin_key: str | None = "boss") -> AsyncIterator[httpx2.AsyncClient]:
    async with site(admin_router(door(keys.ring, admin_key), keys)) as client:
        client.headers.update(ADMIN)
        yield client


@pytest.fixture
async def client(keys: Keys) -> AsyncIterator[httpx2.AsyncClient]:
    async with administered(keys) as client:
        yield client


# --- who may --------------------------------------------------------------------------------------------------------

REQUESTS = [("GET", "/admin/keys"), ("POST", "/admin/keys"), ("DELETE", "/admin/keys/key_1")]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_without_an_admin_key_there_is_nothing(keys: Keys, method: str, path: str) -> None:
    """404, whatever is sent along: a gateway without administration has none to attack."""
    async with administered(keys, admin_key=None) as client:
        for content in (b"", b"{", b'{"name": "x"}'):
            reply = await client.request(method, path, content=content, headers={"content-type": "application/json"})
            assert reply.status_code == 404 and error(reply)["code"] == "not_found"


@pytest.mark.parametrize(("method", "path"), REQUESTS)
@pytest.mark.parametrize("sent", ["", "Bearer bos", "Bearer bossy", "Basic boss"])
async def test_with_another_key_nothing_is_done(
    keys: Keys, client: httpx2.AsyncClient, method: str, path: str, sent: str
) -> None:
    reply = await client.request(method, path, json={"name": "x"}, headers={"authorization": sent})
    assert reply.status_code == 401 and error(reply)["code"] == "invalid_api_key"
    assert await keys.list() == ()


async def test_an_ordinary_key_does_not_administer(keys: Keys, client: httpx2.AsyncClient) -> None:
    secret = (await client.post("/admin/keys", json={"name": "ci"})).json()["key"]
    reply = await client.get("/admin/keys", headers={"authorization": f"Bearer {secret}"})
    assert reply.status_code == 401


async def test_a_body_is_not_read_for_somebody_who_may_not_send_it(client: httpx2.AsyncClient) -> None:
    """Else anybody fills the memory of the gateway, with no key at all."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b"x" * 1000

    reply = await client.post("/admin/keys", content=endless(), headers={"authorization": "Bearer other"})
    assert reply.status_code == 401 and read == 0


# --- keys -----------------------------------------------------------------------------------------------------------


async def test_a_key_lives_from_its_making_to_its_end(keys: Keys, client: httpx2.AsyncClient) -> None:
    made = await client.post("/admin/keys", json={"name": "ci", "tenant": "qa", "models": ["ollama/*"]})
    assert made.status_code == 201
    key = made.json()
    assert key["name"] == "ci" and key["tenant"] == "qa" and key["revoked_at"] is None
    assert keys.ring.authenticate(key["key"]).models == ("ollama/*",)
    listed = (await client.get("/admin/keys")).json()
    assert listed["object"] == "list" and [each["id"] for each in listed["data"]] == [key["id"]]
    assert key["key"] not in str(listed) and not {"key", "sha256"} & listed["data"][0].keys()
    for _ in range(2):  # ending it again does no harm
        ended = await client.delete(f"/admin/keys/{key['id']}")
        assert ended.status_code == 200 and ended.json() == {"id": key["id"], "object": "key", "revoked": True}
    with pytest.raises(InvalidApiKey):
        keys.ring.authenticate(key["key"])
    assert (await client.get("/admin/keys")).json()["data"][0]["revoked_at"]


async def test_a_key_is_made_with_limits(keys: Keys, client: httpx2.AsyncClient) -> None:
    """As they are said they are shown, and kept."""
    limits = {
        "budgets": {"day": 0.1, "month": 5},
        "requests_per_minute": 60,
        "tokens_per_minute": 90_000,
        "concurrency": 4,
    }
    made = await client.post("/admin/keys", json={"name": "ci", **limits})
    assert made.status_code == 201 and limits.items() <= made.json().items()
    (listed,) = (await client.get("/admin/keys")).json()["data"]
    assert limits.items() <= listed.items()
    caller = keys.ring.authenticate(made.json()["key"])
    assert caller.budgets == (("day", 100_000_000), ("month", 5_000_000_000))
    assert (caller.requests_per_minute, caller.tokens_per_minute, caller.concurrency) == (60, 90_000, 4)


@pytest.mark.parametrize(
    ("limits", "param"),
    [
        ({"budgets": {"week": 5}}, "budgets.week"),
        ({"budgets": {"day": "5"}}, "budgets.day"),
        ({"budget": {"day": 5}}, "budget"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_minute": 1.5}, "tokens_per_minute"),
        ({"concurrency": -1}, "concurrency"),
    ],
)
async def test_a_limit_that_is_none_is_refused(
    keys: Keys, client: httpx2.AsyncClient, limits: dict[str, Any], param: str
) -> None:
    """Silently passed over, it would be no limit at all."""
    reply = await client.post("/admin/keys", json={"name": "ci", **limits})
    assert reply.status_code == 422 and error(reply)["param"] == param
    assert await keys.list() == ()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": "ci", "budgets": "week=5"}, 'budgets: must be a mapping of keys to values, like {"day":5}'),
        ({"name": "ci", "budgets": {"week": 5}}, "budgets.week: must be one of 'day', 'month' or 'total'"),
        ({"name": "ci", "models": "ollama/*"}, 'models: must be a list, like ["ollama/*"]'),
        ([], "The body: must be a mapping of keys to values"),
    ],
)
async def test_an_error_says_what_to_write(client: httpx2.AsyncClient, body: Any, said: str) -> None:
    reply = await client.post("/admin/keys", json=body)
    assert reply.status_code == 422 and error(reply)["message"] == said


@pytest.mark.parametrize("key_id", ["key_0", "x", "%00", "x" * 500])
async def test_a_key_that_is_not_there_cannot_be_ended(client: httpx2.AsyncClient, key_id: str) -> None:
    reply = await client.delete(f"/admin/keys/{key_id}")
    assert reply.status_code == 404 and error(reply)["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x\n"}, "name"),
        ({"name": "x", "budget": 5}, "budget"),
        ({"name": "x", "models": "all"}, "models"),
        ({"name": "x", "models": ["a", ""]}, "models.1"),
        ({"name": "x", "expires_at": "soon"}, "expires_at"),
        ({"name": "x", "expires_at": 1_900_000_000_000}, "expires_at"),
        ({"name": "x", "privacy": "none"}, "privacy"),
        ([], None),
        ("x", None),
    ],
)
async def test_what_is_wrong_is_named(keys: Keys, client: httpx2.AsyncClient, body: Any, param: str | None) -> None:
    """A limit that nobody enforces, or a misspelt one, must not look like it was taken."""
    reply = await client.post("/admin/keys", json=body)
    assert reply.status_code == 422 and error(reply)["param"] == param and error(reply)["code"] == "invalid_value"
    assert await keys.list() == ()


@pytest.mark.parametrize(
    ("field", "words"),
    [("tennant", "did you mean tenant?"), ("expires", "did you mean expires_at?"), ("zzz", "there are: name, tenant,")],
)
async def test_an_unknown_field_is_told_its_nearest(client: httpx2.AsyncClient, field: str, words: str) -> None:
    reply = await client.post("/admin/keys", json={"name": "x", field: "1"})
    assert reply.status_code == 422 and error(reply)["param"] == field
    assert error(reply)["message"].startswith(f"{field}: unknown field; {words}")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "", None])
async def test_what_curl_sends_is_taken(client: httpx2.AsyncClient, kind: str | None) -> None:
    """`curl -d '{...}'` calls it a form."""
    headers = {} if kind is None else {"content-type": kind}
    reply = await client.post("/admin/keys", content=b'{"name": "x"}', headers=headers)
    assert reply.status_code == 201 and reply.json()["name"] == "x"
    refused = await client.post("/admin/keys", content=b"name=x", headers=headers)
    assert refused.status_code == 400 and error(refused)["code"] == "invalid_json"


async def test_the_document_says_which_key_it_wants(client: httpx2.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    operations = [operation for path in paths.values() for operation in path.values()]
    assert len(operations) >= 3 and all(
        operation["security"] == [{"admin": []}] for operation in operations if operation.get("tags") == ["admin"]
    )


async def test_an_end_in_the_past_is_refused(client: httpx2.AsyncClient) -> None:
    reply = await client.post("/admin/keys", json={"name": "x", "expires_at": 5})
    assert reply.status_code == 400 and error(reply)["param"] == "expires_at"


@pytest.mark.parametrize("content", [b"{", b'{"name": "x",}', b"\xff\xfe"])
async def test_broken_json_is_said_to_be_that(client: httpx2.AsyncClient, content: bytes) -> None:
    reply = await client.post("/admin/keys", content=content, headers={"content-type": "application/json"})
    assert reply.status_code in (400, 422) and error(reply)["type"] == "invalid_request_error"
    if content == b"{":
        assert error(reply)["code"] == "invalid_json" and error(reply)["param"] is None
