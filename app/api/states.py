"""How a gateway and its models are doing, in the words of `/readyz` and `/v1/models`."""

from __future__ import annotations

from collections.abc import Callable

from app.api.health import Readiness
from app.api.stopping import Stopping
from app.core.card import Card
from app.gateway.discovery import BUILTIN, Discovery
from app.store.client import Store
from app.upstreams.health import Health


def readiness_of(discovery: Discovery, store: Store, stopping: Stopping) -> Callable[[], Readiness]:
    """Ready from the first upstream that answered on, until it stops; the store's absence is told, and lets free
    traffic go on."""

    def readiness() -> Readiness:
        upstreams = {found.upstream: found.error or "ok" for found in discovery.found if found.kind != BUILTIN}
        answered = any(found.models for found in discovery.found if found.kind != BUILTIN)
        checks = {"configuration": "ok", "store": "ok" if store.healthy else "away", "upstreams": upstreams}
        if stopping.begun:
            checks["stopping"] = "no more requests are taken"
        return Readiness(answered and not stopping.begun, checks)

    return readiness


def state_of(discovery: Discovery, health: Health) -> Callable[[Card], str]:
    """A word for people on how a model is doing."""

    def state(card: Card) -> str:
        if card.simulated:
            return "simulated"
        if any(found.error is not None for found in discovery.found if found.upstream == card.upstream):
            return "unreachable"
        return health.demoted(card) or "ready"

    return state
