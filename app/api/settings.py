"""`/admin/settings`: what an operator may change while gateways run; `/admin/versions`: how it stood before, and going
back there."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, ConfigDict

from app.api.admin import behind
from app.api.auth import Door
from app.core.errors import Unprocessable
from app.gateway.runtime import Runtime
from app.gateway.tuning import Setting, Tuning
from app.gateway.versions import KEPT, Version

Number = Annotated[int, Path(ge=0, le=2**53)]
MOST: Final = 100
"""Settings in one change."""


class SettingChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    value: Any


class SettingList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Setting]


class VersionState(BaseModel):
    """All that was changed at run time, as it stood from `at` on (seconds since 1970). `file` names the configuration
    file of that time, null where there was none."""

    number: int
    at: float
    action: str
    subject: str
    reason: str
    flags: dict[str, Any]
    settings: dict[str, Any]
    file: str | None


class VersionList(BaseModel):
    object: Literal["list"] = "list"
    data: list[VersionState]


def settings_router(door: Door, runtime: Runtime, tuning: Tuning) -> APIRouter:
    router = APIRouter(prefix="/admin", tags=["admin"], route_class=behind(door))

    @router.get("/settings", summary="The settings that may be changed at run time")
    async def list_settings() -> SettingList:
        return SettingList(data=tuning.states())

    @router.put("/settings", summary="Change several at once, on every gateway within 2 s; null takes a change back")
    async def put_settings(values: Annotated[dict[str, Any], Body(examples=[{"strategy": "cost"}])]) -> SettingList:
        if not values or len(values) > MOST:
            raise Unprocessable(f"1 to {MOST} settings may be changed at once.")
        return SettingList(data=await tuning.change(values))

    @router.put("/settings/{name:path}", summary="Change one, on every gateway within 2 s; null takes a change back")
    async def put_setting(name: str, change: SettingChange) -> SettingList:
        return SettingList(data=await tuning.change({name: change.value}))

    @router.delete("/settings/{name:path}", summary="Take a change back: what the file says counts again")
    async def delete_setting(name: str) -> SettingList:
        return SettingList(data=await tuning.change({name: None}))

    @router.get("/versions", summary="How flags and settings stood, the newest first; the last one counts")
    async def list_versions(limit: Annotated[int, Query(ge=1, le=KEPT)] = KEPT) -> VersionList:
        return VersionList(data=[_state(version) for version in await runtime.versions.list(limit)])

    @router.post("/versions/{n}/restore", summary="Let everything be as it was in that version; 0: as configured")
    async def restore_version(n: Number) -> VersionState:
        return _state(await runtime.restore(n))

    return router


def _state(version: Version) -> VersionState:
    said = version.model_dump(include={"number", "at", "action", "subject", "reason", "settings"})
    flags = {name: change.value for name, change in version.flags.items() if not change.dropped}
    return VersionState(**said, flags=flags, file=None if version.file is None else version.file.print)
