"""Who asks whether a gateway is ready, or how a model is doing, must not take it out of service by mistake."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from app.api.states import readiness_of, state_of
from app.api.stopping import Stopping
from app.core.card import Card
from app.gateway.discovery import Discovery, Found
from app.store.client import Store
from app.upstreams.health import Health
from tests.api.site import card


def told(where: str, error: BaseException) -> None:
    raise error


def found(upstream: str = "ollama", kind: str = "ollama", models: int = 1, error: str | None = None) -> Found:
    return Found(upstream, kind, True, models, error)


def discovery(*what: Found) -> Discovery:
    return cast(Discovery, SimpleNamespace(found=what))


@pytest.mark.parametrize(
    ("what", "ready"),
    [
        ((), False),
        ((found(models=0),), False),
        ((found(models=0, error="away"),), False),
        ((found("tierway", "builtin"),), False),
        ((found(),), True),
        ((found(error="went away"), found("tierway", "builtin")), True),
        ((found(models=0, error="away"), found("gpu", "vllm")), True),
    ],
)
def test_ready_from_the_first_upstream_that_answered_on(what: tuple[Found, ...], ready: bool) -> None:
    """Losing one later must not take every replica out of service at once."""
    state = readiness_of(discovery(*what), cast(Store, SimpleNamespace(healthy=True)), Stopping(told))()
    assert state.ready is ready and "tierway" not in state.checks["upstreams"]


def test_a_store_that_went_away_is_told_and_does_not_stop_the_service() -> None:
    state = readiness_of(discovery(found()), cast(Store, SimpleNamespace(healthy=False)), Stopping(told))()
    assert state.ready and state.checks["store"] == "away"


@pytest.mark.parametrize(
    ("model", "what", "demoted", "word"),
    [
        (card("ollama/a"), found(), None, "ready"),
        (card("ollama/a"), found(), "throttled", "throttled"),
        (card("ollama/a"), found(error="away"), None, "unreachable"),
        (card("ollama/a"), found("gpu", error="away"), None, "ready"),
        (card("ollama/a", simulated=True), found(error="away"), None, "simulated"),
    ],
)
def test_the_word_for_how_a_model_is_doing(model: Card, what: Found, demoted: str | None, word: str) -> None:
    health = cast(Health, SimpleNamespace(demoted=lambda card: demoted))
    assert state_of(discovery(what), health)(model) == word
