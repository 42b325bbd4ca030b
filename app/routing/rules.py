"""The hard rules: who may not serve a request at all, and why. Ranking what remains is left to `strategies`.

Rules of the caller, the abilities and the flags are the same for many requests, and are worked out once per snapshot of
Cards (`opened`). What depends on the size of a request, its history or its limits is asked each time (`narrowed`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Final, NamedTuple

from app.core.caller import Caller
from app.core.card import PARAM_OF, Ability, Card
from app.core.errors import (
    BudgetExceeded,
    GatewayError,
    ModelNotAllowed,
    Unavailable,
    UnsupportedParameter,
)
from app.core.messages import ThinkingPart
from app.core.plan import Excluded
from app.core.request import AnyRequest, Request
from app.core.value import value
from app.routing.emergency import GONE, UNABLE
from app.routing.estimates import Size
from app.routing.field import Field, Left, Rule, Why
from app.routing.profiles import Profile
from app.routing.registry import Registry
from app.routing.signals import Signals

KINDS: Final = frozenset({Ability.CHAT, Ability.EMBEDDINGS})
"""What a model is for at all: one of another kind is no news to a client that nothing here can serve."""
SOON: Final = 5.0
LATER: Final = 30.0


@value(frozen=True, slots=True)
class Rules:
    """What the operator decided: the strategy of `auto`; the one model it is when routing is off (`routed`); whether
    local and paid upstreams may be used unasked, the latter only in an `emergency`; whether another model may stand in
    (`fallback`), or a smaller one for one that is busy (`degrade`). `chains` names models per ability that stand in
    first where it is needed.

    `threshold` is the score from which requests need not stay local; None when no share is aimed at. `prefer` names
    models per task type. `explore` and `explore_paid` are the shares of `adaptive` requests on which chance tries
    another local, or another paid model.
    """

    strategy: str = "cost"
    routed: bool = True
    default_model: str | None = None
    local: bool = True
    paid: bool = True
    emergency: bool = False
    fallback: bool = True
    degrade: bool = False
    threshold: float | None = None
    max_local_latency: float | None = None
    prefer: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    chains: Mapping[Ability, tuple[str, ...]] = field(default_factory=dict)
    explore: float = 0.05
    explore_paid: float = 0.01


class Bounds(NamedTuple):
    """The hard rules that do not depend on what is asked, save its abilities. `asked` is the model that was asked for
    by name; None for `auto`."""

    request: AnyRequest
    caller: Caller
    rules: Rules
    asked: Card | None
    local_only: bool

    def unfit(self, card: Card) -> Why | None:
        """Why this model may not serve the request, if so."""
        return self._forbidden(card) or self._unable(card) or self._switched_off(card)

    def _forbidden(self, card: Card) -> Why | None:
        # What a key may call also covers what its word stands for, but not what stands in for that.
        word = (self.request.model,) if self.asked is None or self.asked is card else ()
        if not self.caller.may_use(card.id, card.name, *word):
            return Why(
                "this key may not use it",
                lambda: ModelNotAllowed(f"This key may not use {card.id}.", param="model"),
            )
        if self.local_only and not card.local:
            return Why(
                "it is not local",
                lambda: ModelNotAllowed(f"{card.id} is not local, which this asks for.", param="model"),
            )
        return None

    def _unable(self, card: Card) -> Why | None:
        if not (lacking := card.lacks(self.request.needs)):
            return None
        first = min(lacking & KINDS or lacking)
        return Why(
            f"it cannot do this: {', '.join(sorted(lacking))}",
            lambda: UnsupportedParameter(f"{card.id} cannot do this: {first}.", param=PARAM_OF[first]),
        )

    def _switched_off(self, card: Card) -> Why | None:
        if card is self.asked or (self.rules.local if card.local else self.rules.paid):
            return None
        return _unavailable(f"{'local models' if card.local else 'paid upstreams'} are switched off")


def _unavailable(words: str) -> Why:
    return Why(words, lambda: Unavailable(f"{words[0].upper()}{words[1:]}.", retry_after=LATER))


# --- the same for many requests -------------------------------------------------------------------------------------


class Opened(NamedTuple):
    """Who may serve such a request, and who may not. `smallest` is the smallest window of the former."""

    fit: tuple[Profile, ...]
    left: Left
    excluded: tuple[Excluded, ...]
    smallest: int


def opened(bounds: Bounds, registry: Registry) -> Opened:
    """Of all models, for a request to `auto`: the thrifty first."""
    request, caller, rules = bounds.request, bounds.caller, bounds.rules
    word = request.model if caller.models else None  # a key for some models may be one for this very word
    key = (request.needs, caller.models, word, bounds.local_only, rules.local, rules.paid)
    return registry.remember(key, lambda: sorted_out(registry.by_thrift, bounds))


def sorted_out(profiles: Iterable[Profile], bounds: Bounds) -> Opened:
    fit, left = [], []
    for each in profiles:
        why = bounds.unfit(each.card)
        if why is None:
            fit.append(each)
        else:
            left.append((each.card, why))
    return Opened(tuple(fit), tuple(left), excluded(left), min((each.window for each in fit), default=0))


def excluded(left: Left) -> tuple[Excluded, ...]:
    return tuple(Excluded(card.id, why.words) for card, why in left)


# --- of this request ------------------------------------------------------------------------------------------------

TOO_SMALL: Final = _unavailable("its window is too small for this")
WAITING: Final = _unavailable("paid upstreams wait for an emergency")
ELSEWHERE: Final = _unavailable("signed thinking does not move to another model")


def costs_too_much(most: int) -> Rule:
    """Over the limit that came with the request. What cannot be priced cannot be promised to stay below it."""

    def rule(each: Profile, cost: int | None) -> Why | None:
        if cost is None:
            words = "its price is not known, and this request has a limit"
        elif cost > most:
            words = "it costs more than this request may"
        else:
            return None
        text = f"{each.card.id} cannot answer: {words} (x-tierway-max-cost)."
        return Why(words, lambda: BudgetExceeded(text, param="x-tierway-max-cost"))

    return rule


def window_too_small(size: Size) -> Rule:
    """Certainly so, by the least that the text can be in tokens."""
    return lambda each, _: TOO_SMALL if size.least > each.window else None


def not_its_signer(signer: Card, *, dropped: bool = False) -> Rule:
    """A signature holds for the model that made it, at whichever upstream of the kind that offers it. With `dropped`,
    models whose wire leaves such thinking out, and says so, may go on without it."""

    def rule(each: Profile, _: int | None) -> Why | None:
        card = each.card
        same = card.id == signer.id or (card.name == signer.name and card.kind == signer.kind)
        carries = card.kind == "anthropic" or bool(card.quirks.get("keep_extensions"))
        return None if same or (dropped and not carries) else ELSEWHERE

    return rule


def signed(request: AnyRequest) -> bool:
    """Whether the history holds thinking that only its own model can read."""
    return isinstance(request, Request) and any(
        type(part) is ThinkingPart and (part.signature is not None or part.redacted is not None)
        for message in request.messages
        if message.role == "assistant"
        for part in message.parts
    )


def narrowed(field: Field, request: AnyRequest, size: Size, signals: Signals, registry: Registry) -> None:
    """Leaves out who is too dear, whose window is certainly too small, and who could not read the history. The last two
    never leave nobody: the guess may be wrong, and thinking that its own model can no longer read is lost anyway."""
    if request.terms.max_cost_nano is not None:
        field.leave_out(costs_too_much(request.terms.max_cost_nano))
    signer = None if signals.previous is None else registry.profile(signals.previous)
    if signer is not None and signed(request):
        field.leave_out(not_its_signer(signer.card), but_never_all=True)
    if size.least > field.smallest:
        field.leave_out(window_too_small(size), but_never_all=True)


def emergency(field: Field, bounds: Bounds, signals: Signals, registry: Registry) -> tuple[str | None, Field | None]:
    """Under `cloud: emergency`: what allows the paid models. When nothing does they are left out, and told."""
    found = signals.emergency or _no_local_model(field, bounds, registry)
    if found is not None:
        return found, None
    waiting = field.only([not each.local for each in field.profiles])
    field.leave_out(lambda each, _: None if each.local else WAITING)
    return None, waiting


def _no_local_model(field: Field, bounds: Bounds, registry: Registry) -> str | None:
    """None as well when a key, a flag or a limit is what keeps the local ones away: that is wanted."""
    if any(each.local for each in field.profiles):
        return None
    needs = bounds.request.needs
    local = [card for card in registry.cards if card.local and not card.lacks(needs & KINDS)]
    if not local:
        return GONE
    small = {card.id for card, why in field.left if why is TOO_SMALL}
    return UNABLE if all(card.lacks(needs) or card.id in small for card in local) else None


# --- nobody ---------------------------------------------------------------------------------------------------------


def none_left(left: Left, request: AnyRequest) -> GatewayError:
    """What to tell a client whom no model can serve: what it can change, before what it cannot. Who costs too much had
    passed every other rule, so that is said first."""
    kinds = request.needs & KINDS
    relevant = [(card, why.error()) for card, why in left if not card.lacks(kinds)]
    for kind in (BudgetExceeded, UnsupportedParameter, ModelNotAllowed, Unavailable):
        found = [(len(card.lacks(request.needs)), error) for card, error in relevant if isinstance(error, kind)]
        if found:
            _, nearest = min(found, key=lambda pair: pair[0])
            if kind is not UnsupportedParameter:
                return nearest
            needs = ", ".join(sorted(request.needs))
            return UnsupportedParameter(f"No model here can do all of this: {needs}.", param=nearest.param)
    return Unavailable("No upstream offers a model for this at the moment.", retry_after=SOON)
