"""`/admin/budgets`: the limits on spend, how they stand, and changing one; `/admin/reservations`: what is held."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from app.api.admin import behind
from app.api.auth import Door
from app.config.schema import Scope
from app.config.values import Usd
from app.core.money import NANO_PER_USD
from app.gateway.budget_admin import BudgetAdmin, BudgetState, LimitState, Reservation


class LimitChange(BaseModel):
    """USD; a fraction of a nano-dollar counts as nothing."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    limit: Usd


class BudgetList(BaseModel):
    object: Literal["list"] = "list"
    data: list[BudgetState]


class ReservationList(BaseModel):
    """`held` is the sum in USD; `has_more`: there are more than these."""

    object: Literal["list"] = "list"
    data: list[Reservation]
    held: float
    has_more: bool


def budgets_router(door: Door, admin: BudgetAdmin) -> APIRouter:
    router = APIRouter(prefix="/admin", tags=["admin"], route_class=behind(door))

    @router.get("/budgets", summary="All limits on spend: what is used, held and left, and where it leads")
    async def list_budgets(scope: Scope | None = None) -> BudgetList:
        return BudgetList(data=await admin.states(scope))

    @router.put("/budgets/{id:path}", summary="Change a limit, on every gateway within 2 s")
    async def put_budget(id: str, change: LimitChange) -> LimitState:
        return await admin.put(id, int(change.limit * NANO_PER_USD))

    @router.delete("/budgets/{id:path}", summary="Take a change back: what the file or the key says counts again")
    async def delete_budget(id: str) -> LimitState:
        return await admin.remove(id)

    @router.get("/reservations", summary="All money that is held, and for what")
    async def list_reservations(limit: Annotated[int, Query(ge=1, le=5_000)] = 1_000) -> ReservationList:
        found = await admin.reservations(limit + 1)
        some = found[:limit]
        held = sum((Decimal(str(each.held)) for each in some), Decimal(0))
        return ReservationList(data=some, held=float(held), has_more=len(found) > limit)

    return router
