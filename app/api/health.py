"""`/healthz`, `/readyz`, `/metrics`: for whoever watches over the process. They need no key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import APIRouter, Response

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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

    @router.get("/readyz", summary="Whether it takes requests", responses={503: {"description": "Not (or no longer)"}})
    async def readyz() -> Response:
        state = readiness()
        body = orjson.dumps({"status": "ready" if state.ready else "not_ready", "checks": state.checks})
        return Response(body, 200 if state.ready else 503, media_type="application/json")

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        text = await asyncio.to_thread(exposition)
        return Response(text, media_type=METRICS_TYPE)

    return router
