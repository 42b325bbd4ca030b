"""`/admin/upstreams`: how every upstream is doing as this gateway sees it, and an operator's drain and reset of one."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.api.admin import behind
from app.api.auth import Door
from app.gateway.operations import Operations, UpstreamState


class UpstreamList(BaseModel):
    object: Literal["list"] = "list"
    data: list[UpstreamState]


def upstreams_router(door: Door, operations: Operations) -> APIRouter:
    router = APIRouter(prefix="/admin/upstreams", tags=["admin"], route_class=behind(door))

    @router.get("", summary="Health, breakers, latency and calls in flight, as this gateway sees them")
    async def list_upstreams() -> UpstreamList:
        return UpstreamList(data=list(operations.states()))

    @router.post("/{name}/drain", summary="Send it nothing new while anything else can answer, on every gateway")
    async def drain(name: str) -> UpstreamState:
        return await operations.drain(name)

    @router.post("/{name}/resume", summary="End its drain")
    async def resume(name: str) -> UpstreamState:
        return await operations.resume(name)

    @router.post("/{name}/reset", summary="Close its breakers and forget its throttles, on every gateway")
    async def reset(name: str) -> UpstreamState:
        return await operations.reset(name)

    return router
