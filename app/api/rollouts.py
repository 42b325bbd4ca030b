"""`/admin/rollouts`: how rollouts stand and what their arms did; starting one, changing it, arming it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict

from app.api.admin import behind
from app.api.auth import Door
from app.core.errors import ModelNotFound, Unprocessable
from app.gateway.rollback import Rollouts, Standing
from app.routing.registry import Registry
from app.routing.rollouts import CONTROL, TREATMENT, percent, written
from app.routing.trial import FAILED, FIRST, SCORE, Trial, mean, p95

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class RolloutChange(BaseModel):
    """What is not said stays as it is; a new rollout needs `kind`, `share` and `to`."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["canary", "ab", "shadow"] | None = None
    share: str | None = None
    to: dict[str, Any] | None = None
    rollback: bool | None = None
    steps: list[str] | bool | None = None
    dwell: float | None = None


class Arm(BaseModel):
    """The last answers of one arm (200, and 100 scored ones) since the share last changed; null for none."""

    answers: int
    failed: float | None
    first_token_p95_seconds: float | None
    quality: float | None


class RolloutState(BaseModel):
    """`share` and `shadow` are those of the moment, `last_share` is where the steps lead. `evidence` tells, per
    measure, how much more likely what was seen is if the treatment is worse; 1000 is enough."""

    name: str
    status: str
    kind: str
    share: str
    shadow: bool
    last_share: str
    to: dict[str, Any]
    steps: list[str]
    rollback: bool
    dwell: float
    since: float
    cooled_at: float
    reason: str
    arms: dict[str, Arm]
    evidence: dict[str, float]


class RolloutList(BaseModel):
    object: Literal["list"] = "list"
    data: list[RolloutState]


def rollouts_router(door: Door, rollouts: Rollouts, registry: Callable[[], Registry]) -> APIRouter:
    router = APIRouter(prefix="/admin/rollouts", tags=["admin"], route_class=behind(door))

    @router.get("", summary="All rollouts: where they stand, why, and what their arms did")
    async def list_rollouts() -> RolloutList:
        return RolloutList(data=[_state(standing) for standing in await rollouts.standings()])

    @router.put("/{name}", summary='Start a rollout, change it, or arm it again; a share of "0%" switches it off')
    async def put_rollout(name: Name, change: RolloutChange) -> RolloutState:
        said = {field: value for field, value in change.model_dump(exclude_unset=True).items() if value is not None}
        if "to" in said:
            said["to"] = _target(said["to"], registry())
        return _state(await rollouts.put(name, said))

    return router


def _target(to: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """With the model's full id. A rollout to a model that is not there would be one to nowhere."""
    model = to.get("model")
    if not isinstance(model, str):
        return dict(to)
    try:
        card = registry.find(model).card
    except ModelNotFound as error:
        raise Unprocessable(f"to.model: {error.message}", param="to.model") from None
    if card is None:
        raise Unprocessable("to.model: must be a model, not auto", param="to.model")
    return {**to, "model": card.id}


def _state(standing: Standing) -> RolloutState:
    live, trial = standing
    now, form = live.now, written(live.experiment)
    return RolloutState(
        name=live.experiment.name,
        status=live.status,
        share=percent(now.share),
        shadow=now.shadow,
        last_share=form.pop("share"),
        since=live.since,
        cooled_at=live.cooled_at,
        reason=live.reason,
        arms={arm: _arm(trial, arm) for arm in (CONTROL, TREATMENT)},
        evidence={name: round(trial.measure(name).evidence.value, 3) for name in (FAILED, FIRST, SCORE)},
        **form,
    )


def _arm(trial: Trial, arm: str) -> Arm:
    failed, first, score = (trial.measure(name).last(arm == TREATMENT) for name in (FAILED, FIRST, SCORE))
    return Arm(
        answers=len(failed),
        failed=mean(failed) if failed else None,
        first_token_p95_seconds=p95(first) / 1_000 if first else None,
        quality=mean(score) / 1_000 if score else None,
    )
