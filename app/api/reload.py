"""`POST /admin/reload`: reading the configuration file again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from pydantic import BaseModel

from app.api.admin import behind
from app.api.auth import Door
from app.core.errors import Unprocessable
from app.gateway.reloading import FAILED, Outcome


class Reloaded(BaseModel):
    """`ok`, or `unchanged` where there was nothing new. `config_version` names the configuration that counts now."""

    outcome: str
    config_version: str


def reload_router(door: Door, reload: Callable[[], Awaitable[Outcome]]) -> APIRouter:
    router = APIRouter(prefix="/admin/reload", tags=["admin"], route_class=behind(door))

    @router.post("", summary="Read the configuration file again, on every gateway; a bad file changes nothing")
    async def read_again() -> Reloaded:
        said = await reload()
        if said.outcome == FAILED:
            raise Unprocessable("The configuration was not reloaded.\n" + "\n".join(said.problems))
        return Reloaded(outcome=said.outcome, config_version=said.version)

    return router
