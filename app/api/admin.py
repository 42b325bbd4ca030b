"""`/admin/…`: for the operator, behind the admin key. Unknown fields are errors; lists have OpenAI's shape."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.access.keys import KeyRecord, Keys, KeySpec
from app.api.auth import Door
from app.api.inbound import peer_of


class CreatedKey(KeyRecord):
    """A key just made. `key` is its secret, shown this once."""

    key: str


class KeyList(BaseModel):
    object: str = "list"
    data: list[KeyRecord]


def admin_router(door: Door, keys: Keys) -> APIRouter:
    router = APIRouter(prefix="/admin", tags=["admin"], route_class=behind(door))

    @router.get("/keys", summary="All keys, without their secrets")
    async def list_keys() -> KeyList:
        return KeyList(data=list(await keys.list()))

    @router.post("/keys", summary="Make a key; its secret is shown this once", status_code=201)
    async def create_key(spec: KeySpec) -> CreatedKey:
        record, secret = await keys.create(spec)
        return CreatedKey(**record.model_dump(), key=secret)

    @router.delete("/keys/{key_id}", summary="Revoke a key, for good, on every gateway within 2 s")
    async def revoke_key(key_id: str) -> dict[str, Any]:
        await keys.revoke(key_id)
        return {"id": key_id, "object": "key", "revoked": True}

    return router


def behind(door: Door) -> type[APIRoute]:
    """Routes that ask for the admin key before anything else, because FastAPI reads a body before its dependencies.
    A body is JSON, whatever curl calls it by default: the key is protection enough against forms of other sites."""

    class AdminRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                door.admin(dict(request.scope["headers"]), peer_of(request.scope))
                headers = [header for header in request.scope["headers"] if header[0] != b"content-type"]
                return await handle(Request({**request.scope, "headers": headers}, request.receive))

            return guarded

    return AdminRoute
