"""The admin side of a gateway for a test: routers in, a client with the admin key out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import httpx2
from fastapi import APIRouter

from app.api.app import fastapi_app
from app.api.auth import Door
from app.core.caller import Caller
from app.core.errors import InvalidApiKey


class NoKeys:
    any_created = False

    def authenticate(self, secret: str) -> Caller:
        raise InvalidApiKey("The API key is not valid.")


DOOR = Door(NoKeys, admin_key="boss", open_at_first=True)


@contextlib.asynccontextmanager
async def administered(router: APIRouter) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(fastapi_app([router]), raise_app_exceptions=False)
    headers = {"authorization": "Bearer boss"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
        yield client
