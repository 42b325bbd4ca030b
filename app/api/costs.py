"""`/admin/costs` and `/admin/report`: what traffic cost, by whom and by day, and the report on it, for the operator."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from app.api.admin import behind
from app.api.auth import Door
from app.api.statuses import answers
from app.config.problems import nearest
from app.core.errors import Unprocessable
from app.spend.costs import Costs
from app.spend.figures import Figures, figures
from app.spend.goals import goals_of
from app.spend.report import Report, Wanted, report
from app.spend.report_text import csv_of, markdown
from app.spend.span import span_of
from app.spend.sums import Sums, grouped


class Asked(BaseModel):
    """Which days: without any, the last seven."""

    first: Annotated[str | None, Field(alias="from", description="The first day, like 2026-11-14, in UTC.")] = None
    last: Annotated[str | None, Field(alias="to", description="The last day, included.")] = None


class CostsAsked(Asked):
    group_by: Literal["model", "upstream", "key", "tenant", "agent", "day"] = "day"


TEXTS: Final[dict[int | str, Any]] = {200: answers("text/csv", "text/markdown")}
"""Besides JSON."""
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ReportAsked(Asked):
    since: Annotated[str | None, Field(description="Instead of from and to: so many days up to today, like 7d.")] = None
    format: Literal["json", "csv", "markdown"] = "json"
    goal: Annotated[Sequence[str], Field(description="What to judge, like local_share=0.8; as often as needed.")] = ()
    investment: Annotated[Usd | None, Field(description="USD that were put in.")] = None
    per_month: Annotated[Usd, Field(description="USD a month it takes beyond what is imputed.")] = 0.0


class CostList(BaseModel):
    """Each entry of `data` has the name that was grouped by (null: none) and the figures of `total`."""

    object: Literal["list"] = "list"
    first_day: date
    last_day: date
    group_by: str
    total: Figures
    data: list[dict[str, Any]]


def costs_router(door: Door, costs: Costs) -> APIRouter:
    router = APIRouter(prefix="/admin", tags=["admin"], route_class=behind(door))

    @router.get("/costs", summary="What traffic cost, by model, upstream, key, tenant, agent or day")
    async def get_costs(asked: Annotated[CostsAsked, Query()], request: Request) -> CostList:
        _known(request, CostsAsked)
        span = span_of(costs.clock.now(), None, asked.first, asked.last)
        await costs.sync()
        found = await grouped(costs.store, span, asked.group_by)
        total = Sums()
        for sums in found.values():
            total.update(sums)
        return CostList(
            first_day=span.first,
            last_day=span.last,
            group_by=asked.group_by,
            total=figures(total),
            data=[
                {asked.group_by: name or None, **figures(sums).model_dump()} for name, sums in _ordered(found, asked)
            ],
        )

    @router.get(
        "/report",
        summary="Spend, savings, latency, quality and goals of some days",
        response_model=Report,
        responses=TEXTS,
    )
    async def get_report(asked: Annotated[ReportAsked, Query()], request: Request) -> Report | Response:
        _known(request, ReportAsked)
        span = span_of(costs.clock.now(), asked.since, asked.first, asked.last)
        wanted = Wanted(span, goals_of(asked.goal), asked.investment, asked.per_month)
        made = await report(costs, wanted)
        match asked.format:
            case "csv":
                return Response(csv_of(made), media_type="text/csv")
            case "markdown":
                return Response(markdown(made), media_type="text/markdown")
        return made

    return router


def _ordered(found: dict[str, Sums], asked: CostsAsked) -> list[tuple[str, Sums]]:
    """Days as they came, others by what they cost."""
    if asked.group_by == "day":
        return sorted(found.items())
    return sorted(found.items(), key=lambda each: (-each[1]["cost"], each[0]))


def _known(request: Request, model: type[BaseModel]) -> None:
    """A parameter that nobody knows is an error, never ignored."""
    names = {field.alias or name for name, field in model.model_fields.items()}
    for name in request.query_params:
        if name not in names:
            meant = nearest(name[:40], names)
            hint = f"did you mean {meant}?" if meant else f"there are: {', '.join(sorted(names))}"
            raise Unprocessable(f"{name[:40]}: unknown parameter; {hint}", param=name[:40])
