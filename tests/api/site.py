"""The FastAPI side of the gateway for a test: routers in, a client out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import httpx2
from fastapi import APIRouter

from app.api.app import fastapi_app
from app.api.auth import Door
from app.core.card import Ability, Card
from app.core.money import Price
from app.gateway.gateway import Gateway
from app.routing.registry import Registry
from tests.api.test_auth import Ring

ADMIN: Mapping[str, str] = {"authorization": "Bearer boss"}


def door(ring: Any = None, admin_key: str | None = "boss") -> Door:
    found = ring or Ring()
    return Door(lambda: found, admin_key=admin_key, open_at_first=True)


@contextlib.asynccontextmanager
async def site(*routers: APIRouter) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(fastapi_app(routers), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


def error(reply: httpx2.Response) -> dict[str, Any]:
    """The error of a reply, which is always of our shape."""
    assert reply.headers["content-type"] == "application/json" and reply.headers["x-request-id"]
    body = reply.json()
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}
    found: dict[str, Any] = body["error"]
    return found


def card(model_id: str, **more: Any) -> Card:
    upstream, _, name = model_id.partition("/")
    about = {"kind": "ollama", "local": True, "abilities": frozenset({Ability.CHAT}), "price": Price(1, 2, 3, 4, 5)}
    return Card(id=model_id, name=name, upstream=upstream, **{**about, **more})


class Shelf:
    """A gateway of which only its models are looked at."""

    def __init__(self, *cards: Card, aliases: Mapping[str, str] | None = None) -> None:
        self.registry = Registry(cards, aliases)

    @property
    def gateway(self) -> Gateway:
        return cast(Gateway, self)
