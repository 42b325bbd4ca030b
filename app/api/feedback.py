"""`POST /v1/feedback`: what a caller thinks of an answer of its own. It feeds the quality signal."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api.auth import Door
from app.api.inbound import peer_of
from app.api.statuses import described
from app.learning.decisions import Decisions
from app.learning.outcome import folded

TEXTS: Final = ("correction", "reason")


class Feedback(BaseModel):
    """About one request. `correction` is what the answer should have been."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
    rating: Annotated[float, Field(ge=0, le=1, strict=True)]
    correction: Annotated[str, StringConstraints(min_length=1, max_length=16_384)] | None = None
    reason: Annotated[str, StringConstraints(min_length=1, max_length=2_048)] | None = None


class Noted(BaseModel):
    """`kept` says what is remembered beside the rating: nothing of the caller's words where the key's policy or the
    room there is do not allow it."""

    object: str = "feedback"
    request_id: str
    rating: float
    kept: list[str]


def feedback_router(door: Door, decisions: Decisions, count: Callable[[str], None]) -> APIRouter:
    """`count` is told of each rating, folded to a word."""
    router = APIRouter(prefix="/v1", tags=["feedback"], route_class=for_callers(door))

    @router.post(
        "/feedback",
        summary="Rate an answer of your own, 0 to 1",
        status_code=202,
        responses={**described({"404": "There is no such request of this key, or it is too long ago."})},
    )
    async def give(said: Feedback, request: Request) -> Noted:
        texts = [(name, text) for name in TEXTS if (text := getattr(said, name)) is not None]
        caller = door.caller(dict(request.scope["headers"]), peer_of(request.scope))
        kept = await decisions.rate(said.request_id, caller, said.rating, texts)
        count(folded(said.rating))
        return Noted(request_id=said.request_id, rating=said.rating, kept=list(kept))

    return router


def for_callers(door: Door) -> type[APIRoute]:
    """Routes that ask for a key before anything else, because FastAPI reads a body before its dependencies."""

    class CallerRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                door.caller(dict(request.scope["headers"]), peer_of(request.scope))
                return await handle(request)

            return guarded

    return CallerRoute
