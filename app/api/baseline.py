"""`/admin/baseline`: the model that answers are compared with, and how every model does next to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app.api.admin import behind
from app.api.auth import Door
from app.core.errors import ModelNotFound, Unprocessable
from app.gateway.baselines import Baselines
from app.routing.registry import Registry


class BaselineChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str


class ModelRatio(BaseModel):
    """`quality` is the mean of its scored answers, `ratio` that over the baseline's; null where one is unknown."""

    model: str
    quality: float | None
    ratio: float | None


class BaselineState(BaseModel):
    """`model`, since `at` (seconds since 1970), with its `quality` then, by task type and (as `all`) altogether; null
    and empty while there is none."""

    object: Literal["baseline"] = "baseline"
    model: str | None
    at: float | None
    quality: dict[str, float]
    models: list[ModelRatio]


def baseline_router(door: Door, baselines: Baselines, registry: Callable[[], Registry]) -> APIRouter:
    router = APIRouter(prefix="/admin/baseline", tags=["admin"], route_class=behind(door))

    @router.get("", summary="The model that answers are compared with, and how all others do next to it")
    async def get_baseline() -> BaselineState:
        return _state(baselines, registry())

    @router.put("", summary="Make what a model achieved so far the measure, on every gateway")
    async def put_baseline(change: BaselineChange) -> BaselineState:
        known = registry()
        await baselines.put(_full_id(change.model, known))
        return _state(baselines, known)

    return router


def _full_id(model: str, registry: Registry) -> str:
    try:
        card = registry.find(model).card
    except ModelNotFound as error:
        raise Unprocessable(error.message, param="model") from None
    if card is None:
        raise Unprocessable("It must be a model, not auto.", param="model")
    return card.id


def _state(baselines: Baselines, registry: Registry) -> BaselineState:
    success = baselines.success
    known = success.baseline
    return BaselineState(
        model=None if known is None else known.model,
        at=None if known is None else known.at,
        quality={} if known is None else {task or "all": quality for task, quality in known.quality.items()},
        models=[
            ModelRatio(
                model=card.id, quality=_rounded(success.quality(card.id)), ratio=_rounded(success.ratio(card.id))
            )
            for card in registry.cards
        ],
    )


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)
