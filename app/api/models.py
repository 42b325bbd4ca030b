"""`GET /v1/models` and `GET /v1/models/{id}`: what a caller may use. Ids contain slashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from app.api.auth import Door
from app.api.inbound import peer_of
from app.api.statuses import answers
from app.core.card import Card
from app.core.errors import ModelNotFound
from app.gateway.gateway import Gateway
from app.wire.objects import AUTO_MODELS, write_model, write_models

StateOf = Callable[[Card], str]

TEXT: Final = {"type": "string"}
MODEL: Final = {
    "id": TEXT,
    "object": {"const": "model"},
    "created": {},
    "owned_by": TEXT,
    "tierway": {"type": "object"},
}
LIST: Final = {"object": {"const": "list"}, "data": {"type": "array", "items": {"properties": MODEL}}}
LISTED: Final[dict[int | str, Any]] = {200: answers("application/json", fields=LIST)}
SHOWN: Final[dict[int | str, Any]] = {200: answers("application/json", fields=MODEL)}


def models_router(door: Door, gateway: Gateway, state_of: StateOf) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["models"])

    @router.get("/models", summary="The models there are", response_class=Response, responses=LISTED)
    async def list_models(request: Request) -> Response:
        caller = door.viewer(dict(request.scope["headers"]), peer_of(request.scope))
        cards = [card for card in gateway.registry.cards if caller.may_use(card.id, card.name)]
        return _json(write_models(cards, {card.id: state_of(card) for card in cards}))

    @router.get("/models/{model:path}", summary="One model", response_class=Response, responses=SHOWN)
    async def get_model(model: str, request: Request) -> Response:
        caller = door.viewer(dict(request.scope["headers"]), peer_of(request.scope))
        if model in AUTO_MODELS:
            return _json(write_model(model))
        card = gateway.registry.find(model).card
        if card is None:
            return _json(write_model(AUTO_MODELS[0]))
        if not caller.may_use(card.id, card.name, model):
            raise ModelNotFound(f"The model {model[:200]!r} does not exist.", param="model")
        return _json(write_model(card, state_of(card)))

    return router


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
