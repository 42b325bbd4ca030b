"""The plan: which models may answer a request, in which order, and why. Pure.

`auto` takes every model that can do the request and may be used for it: local before paid, then in the order of the
configuration. A model asked for by name is used as asked, and stands at the head of its own `fallback` list. Models
that are failing or throttled go to the end, and are never shut out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from app.core.caller import Caller
from app.core.card import PARAM_OF, Card
from app.core.errors import GatewayError, ModelNotAllowed, Unavailable, UnsupportedParameter
from app.core.plan import Candidate, Excluded, Plan
from app.core.request import EmbeddingRequest, Request
from app.core.tokens import estimate
from app.routing.registry import Registry

Demoted = Callable[[Card], str | None]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator decided: the strategy of `auto`; the one model it is when routing is off (`routed`); whether
    `auto` may use local and paid upstreams."""

    strategy: str = "cost"
    routed: bool = True
    default_model: str | None = None
    local: bool = True
    paid: bool = True


def plan(
    request: Request | EmbeddingRequest, caller: Caller, registry: Registry, rules: Rules, demoted: Demoted
) -> Plan:
    """The candidates in order. Raises the error a client should see when there is none.

    `demoted` tells why a model should wait behind the others for now, or None.
    """
    named = registry.find(request.model)
    strategy = named.strategy or request.terms.strategy or rules.strategy
    if named.card is not None:
        return _as_asked(named.card, request, caller, registry, demoted)
    if not rules.routed and (default := _default(registry, rules)) is not None:
        asked = _as_asked(default, request, caller, registry, demoted)
        return replace(asked, candidates=tuple(replace(c, reason="routing is off") for c in asked.candidates))
    local_only = _local_only(request, caller) or strategy == "privacy"
    fit, excluded = [], []
    for card in registry.cards:
        why = _unfit(card, request, caller, local_only=local_only) or _switched_off(card, rules)
        if why is None:
            fit.append(card)
        else:
            excluded.append((card, why))
    if not fit:
        raise _none_left(excluded, request)
    fit.sort(key=lambda card: not card.local)
    return Plan(
        candidates=_in_order([Candidate(card, _reason(card)) for card in _by_window(fit, request)], demoted),
        strategy=strategy,
        excluded=tuple(Excluded(card.id, why.words) for card, why in excluded),
    )


@dataclass(frozen=True, slots=True)
class _Why:
    """Why a model is left out: words for people, and the error if that leaves none."""

    words: str
    error: GatewayError


def _as_asked(
    card: Card, request: Request | EmbeddingRequest, caller: Caller, registry: Registry, demoted: Demoted
) -> Plan:
    local_only = _local_only(request, caller)
    fallbacks = [other for id_ in card.fallback if (other := registry.get(id_)) is not None]
    kept, excluded = [], []
    for candidate in [
        Candidate(card, "asked for by name"),
        *(Candidate(other, f"fallback of {card.id}", stands_in_for=card.id) for other in fallbacks),
    ]:
        why = _unfit(candidate.card, request, caller, local_only=local_only)
        if why is None:
            kept.append(candidate)
        else:
            excluded.append((candidate.card, why))
    if not kept:
        raise excluded[0][1].error
    return Plan(
        candidates=_in_order(kept, demoted),
        strategy="named",
        excluded=tuple(Excluded(card.id, why.words) for card, why in excluded),
    )


def _unfit(card: Card, request: Request | EmbeddingRequest, caller: Caller, *, local_only: bool) -> _Why | None:
    """The hard rules, each with its reason."""
    if not caller.may_use(card.id, card.name, request.model):
        return _Why("this key may not use it", ModelNotAllowed(f"This key may not use {card.id}.", param="model"))
    if local_only and not card.local:
        return _Why("it is not local", ModelNotAllowed(f"{card.id} is not local, which this asks for.", param="model"))
    if lacking := card.lacks(request.needs):
        ability = min(lacking)
        error = UnsupportedParameter(f"{card.id} cannot do this: {ability}.", param=PARAM_OF[ability])
        return _Why(f"it cannot do this: {', '.join(sorted(lacking))}", error)
    return None


def _switched_off(card: Card, rules: Rules) -> _Why | None:
    if card.local and not rules.local:
        return _Why("local models are switched off", Unavailable("Local models are switched off."))
    if not card.local and not rules.paid:
        return _Why("paid upstreams are switched off", Unavailable("Paid upstreams are switched off."))
    return None


def _none_left(excluded: list[tuple[Card, _Why]], request: Request | EmbeddingRequest) -> GatewayError:
    """What to tell a client whom no model can serve: what it can change, before what it cannot."""
    errors = [why.error for _, why in excluded]
    for kind in (UnsupportedParameter, ModelNotAllowed, Unavailable):
        if found := [error for error in errors if isinstance(error, kind)]:
            if kind is not UnsupportedParameter:
                return found[0]
            needs = ", ".join(sorted(request.needs))
            return UnsupportedParameter(f"No model here can do all of this: {needs}.", param=found[-1].param)
    return Unavailable("No upstream offers a model at the moment.", retry_after=5)


def _local_only(request: Request | EmbeddingRequest, caller: Caller) -> bool:
    return request.terms.local_only or caller.privacy == "local"


def _default(registry: Registry, rules: Rules) -> Card | None:
    """What `auto` is when routing is off: the configured model, else the first local one."""
    if rules.default_model is not None:
        return registry.find(rules.default_model).card
    return next((card for card in registry.cards if card.local), None)


def _by_window(cards: list[Card], request: Request | EmbeddingRequest) -> Iterable[Card]:
    """Models whose window looks too small go behind the others, the largest first: the estimate may be wrong, and
    only the model itself knows its tokens."""
    if not isinstance(request, Request):
        return cards
    size = estimate(request.input_bytes) + (request.max_tokens or 0)
    fits = [card for card in cards if card.context_window is None or card.context_window >= size]
    rest = [card for card in cards if card not in fits]
    return [*fits, *sorted(rest, key=lambda card: -(card.context_window or 0))]


def _in_order(candidates: list[Candidate], demoted: Demoted) -> tuple[Candidate, ...]:
    reasons = [(candidate, demoted(candidate.card)) for candidate in candidates]
    healthy = [candidate for candidate, why in reasons if why is None]
    sick = [replace(candidate, reason=f"{candidate.reason}; {why}") for candidate, why in reasons if why is not None]
    return (*healthy, *sick)


def _reason(card: Card) -> str:
    return "local, and it can do this" if card.local else "it can do this"
