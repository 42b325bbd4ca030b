"""OpenAI's small objects: the list of models, one model, and errors, for every endpoint that speaks JSON.

Writing is towards clients (our `/v1/models`), reading is of the `/v1/models` of upstreams. What a model can do is
decided by discovery and the cards; nothing is guessed here, and unknown is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import orjson

from app.core.card import Card
from app.core.errors import BadReply, GatewayError
from app.core.events import Usage
from app.core.money import PICO_PER_TOKEN_AT_ONE_USD_PER_MILLION, Price, usd
from app.core.record import Served
from app.wire.fields import usable_name

AUTO_MODELS: Final = ("auto", "auto:cost", "auto:quality", "auto:privacy", "auto:adaptive")
"""Names that mean "you choose", as clients see them listed."""

_WINDOW_FIELDS: Final = (
    "max_model_len",  # vLLM
    "max_input_tokens",  # Anthropic
    "context_window",
    "context_length",
    "max_context_length",
)
_OUTPUT_FIELDS: Final = ("max_output_tokens", "max_completion_tokens", "max_tokens")
_NESTING: Final = 4


@dataclass(frozen=True, slots=True)
class Listed:
    """One model as an upstream lists it. None means that it did not say. `capabilities` are dotted names of what it
    claims (`thinking.types.adaptive`, `tools`), with what it denies."""

    id: str
    created: int | None = None
    owned_by: str | None = None
    context_window: int | None = None
    max_output: int | None = None
    parent: str | None = None
    root: str | None = None
    capabilities: Mapping[str, bool] = field(default_factory=dict)


# --- towards clients ------------------------------------------------------------------------------------------------


def write_models(cards: Iterable[Card], states: Mapping[str, str]) -> bytes:
    """The list of models: the `auto` names first. `states` is by card id; a missing one is unknown."""
    data = [_virtual(name) for name in AUTO_MODELS]
    data.extend(_model(card, states.get(card.id)) for card in cards)
    return orjson.dumps({"object": "list", "data": data})


def write_model(model: Card | str, state: str | None = None) -> bytes:
    """One model, by its card, or one of `AUTO_MODELS` by its name."""
    return orjson.dumps(_virtual(model) if isinstance(model, str) else _model(model, state))


def write_error(error: GatewayError) -> bytes:
    """The error as a JSON body, all four fields always there."""
    body = {"message": _text(error.message), "type": error.type, "param": _text(error.param), "code": error.code}
    return orjson.dumps({"error": body})


def tierway(served: Served | None, usage: Usage | None) -> dict[str, Any] | None:
    """The object of that name in every reply: who answered, why, and for how much. None where no gateway served it."""
    if served is None:
        return None
    cost = usage.cost_nano if usage is not None else None
    about: dict[str, Any] = {
        "model": served.model,
        "upstream": served.upstream,
        "tier": served.tier,
        "score": None if served.score is None else round(served.score, 4),
        "reason": served.reason,
        "cost_usd": None if cost is None else usd(cost),
        "attempts": served.attempts,
        "session": served.session,
    }
    if usage is not None and usage.estimated:
        about["usage_estimated"] = True
    if usage is not None and usage.truncated:
        about["truncated"] = True
    if usage is not None and usage.stopped is not None:
        about["stopped"] = usage.stopped
    if served.continued_from is not None:
        about["continued_from"] = served.continued_from
    return about


def _text(text: str | None) -> str | None:
    # A lone surrogate (from a header, say) must not turn an error into another error.
    return None if text is None else text.encode("utf-8", "replace").decode()


def _virtual(name: str) -> dict[str, Any]:
    details = dict.fromkeys(("upstream", "local", "context_window", "abilities", "complexity", "price", "state"))
    local = True if name == "auto:privacy" else None
    return {"id": name, "object": "model", "created": 0, "owned_by": "tierway", "tierway": {**details, "local": local}}


def _model(card: Card, state: str | None) -> dict[str, Any]:
    details: dict[str, Any] = {
        "upstream": card.upstream,
        "local": card.local,
        "context_window": card.context_window,
        "abilities": sorted(card.abilities),
        "complexity": list(card.complexity),
        "price": None if card.price is None else _price(card.price),
        "state": state,
    }
    if card.simulated:
        details["simulated"] = True
    owner = card.owned_by or card.upstream
    return {"id": card.id, "object": "model", "created": card.created, "owned_by": owner, "tierway": details}


def _price(price: Price) -> dict[str, float]:
    """USD per million tokens."""
    return {kind: _usd(getattr(price, kind)) for kind in ("input", "output", "cache_read", "cache_write")}


def _usd(pico: int) -> float:
    return float(Decimal(pico) / PICO_PER_TOKEN_AT_ONE_USD_PER_MILLION)


# --- of upstreams ---------------------------------------------------------------------------------------------------


def read_models(body: bytes) -> tuple[Listed, ...]:
    """The models of an upstream's `/v1/models`. An entry without a usable id is passed over, so that one broken entry
    does not hide the rest; what is no list of models at all is a `BadReply`."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadReply("The upstream's list of models is not JSON.") from None
    entries = reply.get("data") if isinstance(reply, dict) else reply
    if not isinstance(entries, list):
        raise BadReply("The upstream's list of models has no list in it.")
    found = {
        entry["id"]: _listed(entry) for entry in entries if isinstance(entry, dict) and usable_name(entry.get("id"))
    }
    return tuple(found.values())


def _listed(entry: Mapping[str, Any]) -> Listed:
    return Listed(
        id=entry["id"],
        created=_first(entry, ("created",)),
        owned_by=usable_name(entry.get("owned_by")),
        context_window=_first(entry, _WINDOW_FIELDS),
        max_output=_first(entry, _OUTPUT_FIELDS),
        parent=usable_name(entry.get("parent")),
        root=usable_name(entry.get("root")),
        capabilities=dict(_flags(entry.get("capabilities"), "", _NESTING)),
    )


def _first(entry: Mapping[str, Any], fields: Iterable[str]) -> int | None:
    """The first field that holds a positive integer."""
    values = (entry.get(name) for name in fields)
    return next((value for value in values if type(value) is int and value > 0), None)


def _flags(value: Any, prefix: str, nesting: int) -> Iterable[tuple[str, bool]]:
    """Capabilities as servers write them: a list of names, or objects of booleans, nested or as {"supported": ...}."""
    if isinstance(value, list):
        yield from ((prefix + name, True) for name in value if usable_name(name))
    elif isinstance(value, bool) and prefix:
        yield prefix[:-1], value
    elif isinstance(value, dict) and nesting:
        for name, inner in value.items():
            yield from _flags(inner, prefix if name == "supported" else f"{prefix}{name}.", nesting - 1)
