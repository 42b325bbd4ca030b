"""Without these a client cannot find out what there is, or sees what it may not use."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import httpx2
import pytest

from app.api.models import models_router
from app.core.caller import Caller
from tests.api.site import ADMIN, Shelf, card, door, error, site
from tests.api.test_auth import Ring

SMALL, LARGE = card("ollama/small"), card("claude/large", local=False, price=None)
VIRTUAL = ["auto", "auto:cost", "auto:quality", "auto:privacy", "auto:adaptive"]


@contextlib.asynccontextmanager
async def models(
    ring: Ring | None = None, aliases: Mapping[str, str] | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    shelf = Shelf(SMALL, LARGE, aliases=aliases)
    async with site(models_router(door(ring), shelf.gateway, lambda card: f"{card.name} state")) as client:
        yield client


def ids(reply: httpx2.Response) -> list[str]:
    assert reply.status_code == 200 and reply.json()["object"] == "list"
    return [model["id"] for model in reply.json()["data"]]


async def test_all_models_are_listed_with_what_is_known_of_them() -> None:
    async with models() as client:
        reply = await client.get("/v1/models")
    assert ids(reply) == [*VIRTUAL, "ollama/small", "claude/large"]
    small = reply.json()["data"][5]
    assert small["object"] == "model" and small["tierway"]["state"] == "small state"
    assert small["tierway"]["price"]["input"] == 0.000001 and reply.json()["data"][6]["tierway"]["price"] is None


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("ollama/small", "ollama/small"),
        ("small", "ollama/small"),
        ("claude%2Flarge", "claude/large"),
        ("auto", "auto"),
        ("auto:privacy", "auto:privacy"),
        ("fast", "ollama/small"),
        ("gpt-4o", "auto"),
    ],
)
async def test_one_model_is_found_by_whatever_it_may_be_asked_for(asked: str, answered: str) -> None:
    """Ids contain slashes; aliases and bare names work here as they do in requests."""
    async with models(aliases={"fast": "small", "gpt-*": "auto"}) as client:
        reply = await client.get(f"/v1/models/{asked}")
    assert reply.status_code == 200 and reply.json()["id"] == answered


@pytest.mark.parametrize("asked", ["ollama/smal", "", "x" * 5000, "a/b/c", "%00", "%ff", "..%2f..%2fetc"])
async def test_a_model_that_is_not_there_is_a_404_in_our_shape(asked: str) -> None:
    async with models() as client:
        reply = await client.get(f"/v1/models/{asked}")
    assert reply.status_code == 404 and error(reply)["code"] == "model_not_found"
    assert len(reply.content) < 1000
    if asked == "ollama/smal":
        assert "ollama/small" in error(reply)["message"]


class TestAKeyForSomeModels:
    """What a key may not use, it does not even see."""

    ring = Ring({"s3": Caller(key_id="k", models=("ollama/*", "quick"))}, True)
    key: ClassVar[dict[str, Any]] = {"headers": {"authorization": "Bearer s3"}}

    async def test_lists_only_those(self) -> None:
        async with models(self.ring) as client:
            assert ids(await client.get("/v1/models", **self.key)) == [*VIRTUAL, "ollama/small"]

    async def test_does_not_find_the_others(self) -> None:
        async with models(self.ring) as client:
            for asked in ("claude/large", "large"):
                reply = await client.get(f"/v1/models/{asked}", **self.key)
                assert reply.status_code == 404 and error(reply)["param"] == "model"

    async def test_finds_by_an_alias_that_it_may_use(self) -> None:
        async with models(self.ring, {"quick": "large"}) as client:
            assert (await client.get("/v1/models/quick", **self.key)).json()["id"] == "claude/large"


async def test_without_a_key_nothing_is_told_where_one_is_needed() -> None:
    async with models(TestAKeyForSomeModels.ring) as client:
        for path in ("/v1/models", "/v1/models/auto", "/v1/models/ollama/small"):
            reply = await client.get(path)
            assert reply.status_code == 401 and error(reply)["code"] == "invalid_api_key"


async def test_the_operator_sees_them_all() -> None:
    """`tierway models` comes with the admin key."""
    async with models(TestAKeyForSomeModels.ring) as client:
        assert len(ids(await client.get("/v1/models", headers=dict(ADMIN)))) == 7
