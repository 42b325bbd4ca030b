"""`GET` and `DELETE /v1/sessions/{id}`: what is kept of a caller's own conversation, and forgetting it."""

from __future__ import annotations

from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response

from app.api.auth import Door
from app.api.inbound import peer_of
from app.api.statuses import answers
from app.core.errors import NotFound
from app.sessions.export import as_json, as_markdown
from app.sessions.said import NOTHING
from app.sessions.sessions import Sessions, place_of

TEXT: Final = {"type": "string"}
COUNT: Final = {"type": "integer"}
FIELDS: Final = {
    **dict.fromkeys(("id", "object"), TEXT),
    **dict.fromkeys(("created_at", "updated_at", "turns", "dropped_messages"), COUNT),
    "model": {"type": ["string", "null"]},
    "messages": {"type": "array", "items": {"type": "object"}},
}
KEPT: Final[dict[int | str, Any]] = {200: answers("application/json", "text/markdown", fields=FIELDS)}


def sessions_router(door: Door, sessions: Sessions) -> APIRouter:
    """Whoever asks for another's session is told the same as for one that never was."""
    router = APIRouter(prefix="/v1", tags=["sessions"])

    def place(request: Request, session: str) -> str:
        return place_of(door.caller(dict(request.scope["headers"]), peer_of(request.scope)), session)

    @router.get(
        "/sessions/{session_id:path}", summary="What is kept of a conversation", response_class=Response, responses=KEPT
    )
    async def get_session(session_id: str, request: Request, format: Literal["json", "markdown"] = "json") -> Response:
        kept = await sessions.load(place(request, session_id))
        if kept == NOTHING:
            raise _unknown(session_id)
        if format == "markdown":
            return Response(as_markdown(session_id, kept), media_type="text/markdown; charset=utf-8")
        return Response(as_json(session_id, kept), media_type="application/json")

    @router.delete("/sessions/{session_id:path}", summary="Forget a conversation")
    async def delete_session(session_id: str, request: Request) -> dict[str, Any]:
        if not await sessions.delete(place(request, session_id)):
            raise _unknown(session_id)
        return {"id": session_id, "object": "session.deleted", "deleted": True}

    return router


def _unknown(session: str) -> NotFound:
    return NotFound(f"There is no session {session[:256]!r} of yours; it may have ended.", param="session_id")
