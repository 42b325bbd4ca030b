"""`/admin/flags`: the feature flags, what each being off means, and changing one for everybody or for some."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, StringConstraints, WithJsonSchema

from app.api.admin import behind
from app.api.auth import Door
from app.config.features import FEATURES, flag_value
from app.config.values import FlagValue
from app.core.errors import Unprocessable
from app.gateway.switches import Change, Switch, Switches

Who = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^\P{C}+$")]
Value = Annotated[FlagValue, WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "examples": ["10%"]}]})]


class FlagChange(BaseModel):
    """`true`, `false` or a percentage like "10%"; for everybody, or for one agent type, key or tenant."""

    model_config = ConfigDict(extra="forbid")

    value: Value
    agent: Who | None = None
    key: Who | None = None
    tenant: Who | None = None


class Override(BaseModel):
    """What was changed at run time, for everybody where `scope` is null. `counts` is false for what the environment has
    overtaken or locks."""

    scope: str | None
    who: str | None
    value: bool | str
    counts: bool


class FlagState(BaseModel):
    """`value` is that of the moment, `start` what the environment says; with `locked` nothing changes it. `service` is
    what the flag service says of everybody, null where there is none, or it is not asked, or does not know."""

    name: str
    value: bool | str
    start: bool | str
    locked: bool
    service: bool | str | None
    changes: list[Override]
    off_means: str


class FlagList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FlagState]


def flags_router(door: Door, switches: Switches) -> APIRouter:
    router = APIRouter(prefix="/admin/flags", tags=["admin"], route_class=behind(door))

    @router.get("", summary="The feature flags, what each being off means, and what was changed")
    async def list_flags() -> FlagList:
        return FlagList(data=[_state(switch) for switch in switches.states()])

    @router.put("/{name}", summary="Change a flag, on every gateway within 2 s")
    async def put_flag(name: str, change: FlagChange) -> FlagState:
        return _state(await switches.put(name, change.value, *_scope(change.agent, change.key, change.tenant)))

    @router.delete("/{name}", summary="Take a change back: what is configured counts again")
    async def delete_flag(
        name: str,
        agent: Annotated[str | None, Query()] = None,
        key: Annotated[str | None, Query()] = None,
        tenant: Annotated[str | None, Query()] = None,
    ) -> FlagState:
        return _state(await switches.unset(name, *_scope(agent, key, tenant)))

    return router


def _scope(agent: str | None, key: str | None, tenant: str | None) -> tuple[str | None, str | None]:
    said = [(scope, who) for scope, who in (("agent", agent), ("key", key), ("tenant", tenant)) if who is not None]
    if len(said) > 1:
        raise Unprocessable("A change is for everybody or for one of agent, key and tenant.", param=said[1][0])
    return said[0] if said else (None, None)


def _state(switch: Switch) -> FlagState:
    return FlagState(
        name=switch.name,
        value=flag_value(switch.share),
        start=flag_value(switch.start),
        locked=switch.locked,
        service=None if switch.served is None else flag_value(switch.served),
        changes=[_override(change) for change in switch.changes],
        off_means=FEATURES[switch.name].off_means,
    )


def _override(change: Change) -> Override:
    return Override(scope=change.scope, who=change.who, value=flag_value(change.share), counts=change.counts)
