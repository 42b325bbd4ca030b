"""`GET /admin/decisions/{request_id}`: why a request was answered by the model it was, for the operator."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from app.api.admin import behind
from app.api.auth import Door
from app.learning.decisions import Decisions
from app.learning.explained import explained


def decisions_router(door: Door, decisions: Decisions) -> APIRouter:
    router = APIRouter(prefix="/admin", tags=["admin"], route_class=behind(door))

    @router.get("/decisions/{request_id}", summary="Why this model: the decision, its estimates and what came of it")
    async def get_decision(request_id: str) -> dict[str, Any]:
        return explained(await decisions.get(request_id))

    return router
