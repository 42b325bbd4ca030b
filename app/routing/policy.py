"""The plan: which models may answer a request, in which order, and why. Pure.

`auto` takes every model that can do the request and may be used for it: local before paid, then in the order of the
configuration. A model asked for by name is used as asked, and stands at the head of its own `fallback` list. Models
that are failing or throttled go to the end, and are never shut out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.core.caller import Caller
from app.core.card import PARAM_OF, Ability, Card
from app.core.errors import GatewayError, ModelNotAllowed, ModelNotFound, Unavailable, UnsupportedParameter
from app.core.plan import Candidate, Excluded, Plan
from app.core.request import EmbeddingRequest, Request
from app.core.tokens import estimate
from app.routing.registry import Registry

Demoted = Callable[[Card], str | None]

KINDS: Final = frozenset({Ability.CHAT, Ability.EMBEDDINGS})
"""What a model is for at all: one of another kind is no news to a client that nothing here can serve."""
SOON: Final = 5.0
LATER: Final = 30.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator decided: the strategy of `auto`; the one model it is when routing is off (`routed`); whether
    local and paid upstreams may be used unasked; whether another model may stand in (`fallback`)."""

    strategy: str = "cost"
    routed: bool = True
    default_model: str | None = None
    local: bool = True
    paid: bool = True
    fallback: bool = True


def plan(
    request: Request | EmbeddingRequest, caller: Caller, registry: Registry, rules: Rules, demoted: Demoted
) -> Plan:
    """The candidates in order. Raises the error a client should see when there is none.

    `demoted` tells why a model should wait behind the others for now, or None.
    """
    named = registry.find(request.model)
    strategy = named.strategy or request.terms.strategy or rules.strategy
    private = request.terms.strategy == "privacy" or (named.card is None and strategy == "privacy")
    local_only = private or request.terms.local_only or caller.privacy == "local"
    bounds = _Bounds(request, caller, rules, named.card, local_only)
    if named.card is not None:
        return _with_fallbacks(Candidate(named.card, "asked for by name"), bounds, registry, demoted)
    if not rules.routed and (default := _default(registry, rules, request)) is not None:
        return _with_fallbacks(Candidate(default, "routing is off"), bounds, registry, demoted)
    fit, excluded = _sorted_out([Candidate(card, _reason(card)) for card in registry.cards], bounds)
    if not fit:
        raise _none_left(excluded, request)
    fit.sort(key=lambda candidate: not candidate.card.local)
    return _plan(_by_window(fit, request), excluded, strategy, rules, demoted)


@dataclass(frozen=True, slots=True)
class _Why:
    """Why a model is left out: words for people, and the error if that leaves none."""

    words: str
    error: GatewayError


_Left = list[tuple[Card, _Why]]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The hard rules of one request. `asked` is the model it asked for by name; None for `auto`."""

    request: Request | EmbeddingRequest
    caller: Caller
    rules: Rules
    asked: Card | None
    local_only: bool

    def unfit(self, card: Card) -> _Why | None:
        """Why this model may not serve the request, if so."""
        return self._forbidden(card) or self._unable(card) or self._switched_off(card)

    def _forbidden(self, card: Card) -> _Why | None:
        # What a key may call also covers what its word stands for, but not what stands in for that.
        word = (self.request.model,) if self.asked is None or self.asked is card else ()
        if not self.caller.may_use(card.id, card.name, *word):
            return _Why("this key may not use it", ModelNotAllowed(f"This key may not use {card.id}.", param="model"))
        if self.local_only and not card.local:
            error = ModelNotAllowed(f"{card.id} is not local, which this asks for.", param="model")
            return _Why("it is not local", error)
        return None

    def _unable(self, card: Card) -> _Why | None:
        if not (lacking := card.lacks(self.request.needs)):
            return None
        first = min(lacking & KINDS or lacking)
        error = UnsupportedParameter(f"{card.id} cannot do this: {first}.", param=PARAM_OF[first])
        return _Why(f"it cannot do this: {', '.join(sorted(lacking))}", error)

    def _switched_off(self, card: Card) -> _Why | None:
        if card is self.asked or (self.rules.local if card.local else self.rules.paid):
            return None
        words = f"{'local models' if card.local else 'paid upstreams'} are switched off"
        return _Why(words, Unavailable(f"{words.capitalize()}.", retry_after=LATER))


def _with_fallbacks(head: Candidate, bounds: _Bounds, registry: Registry, demoted: Demoted) -> Plan:
    """One model, and behind it what its own list names."""
    card = head.card
    others = map(registry.get, dict.fromkeys(card.fallback if bounds.rules.fallback else ()))
    behind = [
        Candidate(other, f"fallback of {card.id}", stands_in_for=card.id)
        for other in others
        if other is not None and other is not card
    ]
    fit, excluded = _sorted_out([head, *behind], bounds)
    if not fit:
        raise excluded[0][1].error
    return _plan(fit, excluded, "named", bounds.rules, demoted)


def _sorted_out(candidates: Iterable[Candidate], bounds: _Bounds) -> tuple[list[Candidate], _Left]:
    """Those that may serve, and those that may not."""
    fit, excluded = [], []
    for candidate in candidates:
        why = bounds.unfit(candidate.card)
        if why is None:
            fit.append(candidate)
        else:
            excluded.append((candidate.card, why))
    return fit, excluded


def _plan(fit: Sequence[Candidate], excluded: _Left, strategy: str, rules: Rules, demoted: Demoted) -> Plan:
    left_out = [Excluded(card.id, why.words) for card, why in excluded]
    candidates = _in_order(fit, demoted)
    if not rules.fallback:
        left_out += [Excluded(other.card.id, "fallback is switched off") for other in candidates[1:]]
        candidates = candidates[:1]
    return Plan(candidates, strategy, tuple(left_out))


def _none_left(excluded: _Left, request: Request | EmbeddingRequest) -> GatewayError:
    """What to tell a client whom no model can serve: what it can change, before what it cannot."""
    kinds = request.needs & KINDS
    relevant = [(card, why.error) for card, why in excluded if not card.lacks(kinds)]
    for kind in (UnsupportedParameter, ModelNotAllowed, Unavailable):
        found = [(len(card.lacks(request.needs)), error) for card, error in relevant if isinstance(error, kind)]
        if found:
            _, nearest = min(found, key=lambda pair: pair[0])
            if kind is not UnsupportedParameter:
                return nearest
            needs = ", ".join(sorted(request.needs))
            return UnsupportedParameter(f"No model here can do all of this: {needs}.", param=nearest.param)
    return Unavailable("No upstream offers a model for this at the moment.", retry_after=SOON)


def _default(registry: Registry, rules: Rules, request: Request | EmbeddingRequest) -> Card | None:
    """What `auto` is when routing is off: the configured model, else the first local one; None when that is for
    something else than this."""
    kinds = request.needs & KINDS
    if rules.default_model is None:
        return next((card for card in registry.cards if card.local and not card.lacks(kinds)), None)
    try:
        card = registry.find(rules.default_model).card
    except ModelNotFound:
        raise Unavailable("The default model is not there at the moment.", retry_after=SOON) from None
    return None if card is None or card.lacks(kinds) else card


def _by_window(candidates: list[Candidate], request: Request | EmbeddingRequest) -> list[Candidate]:
    """Models whose window looks too small go behind the others, the largest first: the estimate may be wrong, and
    only the model itself knows its tokens."""
    if not isinstance(request, Request):
        return candidates
    size = estimate(request.input_bytes) + (request.max_tokens or 0)

    def shortage(candidate: Candidate) -> int:
        window = candidate.card.context_window
        return 0 if window is None else max(0, size - window)

    return sorted(candidates, key=shortage)


def _in_order(candidates: Sequence[Candidate], demoted: Demoted) -> tuple[Candidate, ...]:
    reasons = [(candidate, demoted(candidate.card)) for candidate in candidates]
    healthy = [candidate for candidate, why in reasons if why is None]
    sick = [replace(candidate, reason=f"{candidate.reason}; {why}") for candidate, why in reasons if why is not None]
    return (*healthy, *sick)


def _reason(card: Card) -> str:
    return "local, and it can do this" if card.local else "it can do this"
