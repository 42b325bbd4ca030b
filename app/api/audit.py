"""`/admin/audit`: what was changed, by whom and why."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from app.api.admin import behind
from app.api.auth import Door
from app.gateway.audit import KEPT, Audit

Limit = Annotated[int, Query(ge=1, le=KEPT, description="How many entries, at most.")]


class AuditList(BaseModel):
    """Each with `at` (seconds since 1970), `actor` (`admin`, `file`, `tierway`), `action`, `subject` and `reason`."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]


def audit_router(door: Door, audit: Audit) -> APIRouter:
    router = APIRouter(prefix="/admin/audit", tags=["admin"], route_class=behind(door))

    @router.get("", summary="Changes by operators, by the file and by the gateway itself, the newest first")
    async def list_entries(limit: Limit = 100) -> AuditList:
        return AuditList(data=await audit.entries(limit))

    return router
