"""`/healthz`, `/readyz`, `/metrics`: for whoever watches over the process. They need no key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi import APIRouter, Response

from app.api.statuses import answers

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATE: Final = {"status": {"enum": ["ready", "not_ready"]}, "checks": {"type": "object"}}
READY: Final[dict[int | str, Any]] = {
    200: answers("application/json", about="It does", fields=STATE),
    503: answers("application/json", about="Not (or no longer)", fields=STATE),
}
EXPOSED: Final[dict[int | str, Any]] = {200: answers("text/plain", about="In Prometheus' text format")}


@dataclass(frozen=True, slots=True)
class Readiness:
    """`checks` are what is looked at, with a word for people each. Losing the store after start is told in them, but
    does not make the gateway unready: free local traffic goes on."""

    ready: bool
    checks: dict[str, Any]


def health_router(readiness: Callable[[], Readiness], exposition: Callable[[], bytes]) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", summary="Whether the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="Whether it takes requests", response_class=Response, responses=READY)
    async def readyz() -> Response:
        state = readiness()
        body = orjson.dumps({"status": "ready" if state.ready else "not_ready", "checks": state.checks})
        return Response(body, 200 if state.ready else 503, media_type="application/json")

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response, responses=EXPOSED)
    async def metrics() -> Response:
        text = await asyncio.to_thread(exposition)
        return Response(text, media_type=METRICS_TYPE)

    return router
