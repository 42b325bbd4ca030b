"""The plan: which models may answer a request, in which order, and why. Pure.

Hard rules first (`rules`), then the strategy (`strategies`), then the moment: load, the conversation's own model,
health, and a little chance. What a rollout changes of the plan, it changes afterwards (`rollouts.placed`). A model
asked for by name is used as asked, and stands at the head of its own `fallback` list. Without a verdict `auto` is local
before paid, in the order of the configuration. Models that are failing or throttled go to the end, and are never shut
out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from app.core.caller import Caller
from app.core.card import Card
from app.core.errors import ModelNotFound, Unavailable
from app.core.plan import Candidate, Excluded, Plan
from app.core.request import AnyRequest
from app.core.verdict import Verdict
from app.routing.estimates import Size, estimated, size_of
from app.routing.explore import Chance, explored
from app.routing.field import Field
from app.routing.load import BUSY, relieved, smaller
from app.routing.registry import Registry
from app.routing.rules import (
    KINDS,
    SOON,
    WAITING,
    Bounds,
    Rules,
    costs_too_much,
    emergency,
    excluded,
    narrowed,
    none_left,
    not_its_signer,
    opened,
    signed,
    sorted_out,
)
from app.routing.signals import QUIET, Signals, idle
from app.routing.strategies import Chains, Question, covering, ranked, reasons, side_of

EMERGENCY: Final = "emergency; "

Demoted = Callable[[Card], str | None]


def plan(
    request: AnyRequest,
    caller: Caller,
    registry: Registry,
    rules: Rules,
    signals: Signals = QUIET,
    verdict: Verdict | None = None,
) -> Plan:
    """The candidates in order. Raises the error a client should see when there is none."""
    named = registry.find(request.model)
    strategy = named.strategy or request.terms.strategy or rules.strategy
    private = request.terms.strategy == "privacy" or (named.card is None and strategy == "privacy")
    local_only = private or request.terms.local_only or caller.privacy == "local"
    bounds = Bounds(request, caller, rules, named.card, local_only)
    case = _Case(bounds, registry, signals, verdict, size_of(request))
    if named.card is not None:
        return _with_fallbacks(named.card, "asked for by name", case)
    if not rules.routed and (default := _default(registry, rules, request)) is not None:
        return _with_fallbacks(default, "routing is off", case)
    return _routed(strategy, case)


class _Case(NamedTuple):
    bounds: Bounds
    registry: Registry
    signals: Signals
    verdict: Verdict | None
    size: Size


# --- auto -----------------------------------------------------------------------------------------------------------


def _routed(strategy: str, case: _Case) -> Plan:
    """Rules, strategy, moment."""
    bounds, registry, signals, verdict, size = case
    request, rules, before = bounds.request, bounds.rules, signals.previous
    open_ = opened(bounds, registry)
    field = estimated(open_.fit, size, signals, verdict, open_.smallest)
    narrowed(field, request, size, signals, registry)
    trigger, waiting = emergency(field, bounds, signals, registry) if rules.emergency else (None, None)
    if not field.profiles:
        raise none_left((*open_.left, *field.left), request)
    question = Question(
        strategy,
        size.needed,
        rules,
        signals,
        verdict,
        None if before is None else field.index(before),
        _preferred(registry, rules, verdict) if rules.prefer else (),
        side_of(verdict, rules, None if before is None else registry.profile(before), trigger),
        _chains(registry, rules, request) if rules.chains else (),
    )
    left_out = open_.excluded + excluded(field.left) if field.left else open_.excluded
    made = _planned(field, question, left_out, trigger, size)
    if waiting is None or not waiting.profiles or not rules.fallback:
        return made
    return replace(made, reserve=_reserve(waiting, question))


def _planned(field: Field, question: Question, left_out: tuple[Excluded, ...], trigger: str | None, size: Size) -> Plan:
    profiles, signals, rules = field.profiles, question.signals, question.rules
    covers = covering(field, question)
    order = ranked(field, covers, question)
    said = reasons(field, covers, order, question)
    if trigger is not None:
        said = [words if each.local else f"{EMERGENCY}{trigger}" for each, words in zip(profiles, said, strict=True)]
    if signals.load is not idle:
        order = _spread(order, said, field, covers, question)
    loop = field.index(signals.previous) if signals.in_tool_loop else None
    if loop is not None:
        said[loop] = "keeps the tool loop's model"
        order = _first(loop, order)
    if question.chains:
        order = _chained(order, said, field, question)
    candidates = _in_order(field.candidates(order, said), signals.demoted)
    chance = Chance(candidates, 1.0)
    if question.strategy == "adaptive" and question.verdict is not None and signals.previous is None:
        chance = explored(candidates, signals, rules)
    previous = None if question.sticky is None else signals.previous
    return _plan(chance, question.strategy, left_out, rules, question.verdict, size, trigger, previous)


def _reserve(waiting: Field, question: Question) -> tuple[Candidate, ...]:
    """The paid models that wait for an emergency, in the order in which they would be tried."""
    question = question._replace(sticky=waiting.index(question.signals.previous), side=None)
    order = ranked(waiting, covering(waiting, question), question)
    candidates = waiting.candidates(order, [WAITING.words] * len(order))
    return tuple(_in_order(candidates, question.signals.demoted))


def _spread(order: list[int], said: list[str], field: Field, covers: Sequence[bool], question: Question) -> list[int]:
    """Away from upstreams that are busy."""
    profiles, load = field.profiles, question.signals.load
    busy = [load(each.card) > BUSY for each in profiles]
    if not any(busy):
        return order
    before, order = order, relieved(order, profiles, covers, busy)
    if order[0] != before[0]:
        said[order[0]] = "free, while its like is busy"
    for at, full in enumerate(busy):
        if full:
            said[at] += "; busy"
    if question.rules.degrade and busy[order[0]] and (other := smaller(order, profiles, busy)) is not None:
        said[other] = "smaller, while the right one is busy"
        order = _first(other, order)
    return order


def _first(index: int, order: list[int]) -> list[int]:
    return [index, *(other for other in order if other != index)]


def _preferred(registry: Registry, rules: Rules, verdict: Verdict | None) -> tuple[int, ...]:
    """The places of what the operator prefers for this kind of task; what is not there is passed over."""
    names = rules.prefer.get(verdict.task_type, ()) if verdict is not None else ()
    return registry.places(names) if names else ()


def _chains(registry: Registry, rules: Rules, request: AnyRequest) -> Chains:
    """The places of what is named for each ability that the request needs, in the order of the configuration."""
    needed = [(ability, names) for ability, names in rules.chains.items() if ability in request.needs]
    return tuple((ability, registry.places(names)) for ability, names in needed)


def _chained(order: list[int], said: list[str], field: Field, question: Question) -> list[int]:
    """Behind the first those that the operator named for what the request needs; then everybody else. A window that
    looks too small goes behind all the same."""
    at = {each.place: index for index, each in enumerate(field.profiles)}
    chain: dict[int, None] = {}
    for ability, places in question.chains:
        for index in [at[place] for place in places if place in at]:
            if index != order[0] and index not in chain:
                chain[index] = None
                if not said[index].startswith(EMERGENCY):
                    said[index] = f"in the chain for {ability}"
    others = [*chain, *(other for other in order[1:] if other not in chain)]
    return [order[0], *sorted(others, key=lambda index: max(0, question.needed - field.profiles[index].window))]


# --- one model, and what stands in for it ---------------------------------------------------------------------------


def _with_fallbacks(head: Card, reason: str, case: _Case) -> Plan:
    """One model, and behind it what its own list names."""
    bounds, registry, signals, verdict, size = case
    request, rules = bounds.request, bounds.rules
    ids = dict.fromkeys((head.id, *(head.fallback if rules.fallback else ())))
    profiles = [each for each in map(registry.profile, ids) if each is not None]
    fit, left, left_out, _ = sorted_out(profiles, bounds)
    field = estimated(fit, size, signals, verdict)
    if request.terms.max_cost_nano is not None:
        field.leave_out(costs_too_much(request.terms.max_cost_nano))
    if len(field.profiles) > 1 and signed(request):
        signer = registry.get(signals.previous or "") or head
        field.leave_out(not_its_signer(signer, dropped=True), but_never_all=True)
    if not field.profiles:
        raise (*left, *field.left)[0][1].error()
    said = [reason if each.card is head else f"fallback of {head.id}" for each in field.profiles]
    candidates = [
        each if each.card is head else each._replace(stands_in_for=head.id)
        for each in field.candidates(range(len(said)), said)
    ]
    chance = Chance(_in_order(candidates, signals.demoted), 1.0)
    return _plan(chance, "named", left_out + excluded(field.left), rules, verdict, size)


def _default(registry: Registry, rules: Rules, request: AnyRequest) -> Card | None:
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


# --- both -----------------------------------------------------------------------------------------------------------


def _in_order(candidates: list[Candidate], demoted: Demoted) -> list[Candidate]:
    """The sick behind the well."""
    waits = [demoted(candidate.card) for candidate in candidates]
    if not any(waits):
        return candidates
    both = list(zip(candidates, waits, strict=True))
    well = [candidate for candidate, why in both if why is None]
    return well + [each._replace(reason=f"{each.reason}; {why}") for each, why in both if why is not None]


def _plan(
    chance: Chance,
    strategy: str,
    left_out: tuple[Excluded, ...],
    rules: Rules,
    verdict: Verdict | None,
    size: Size,
    trigger: str | None = None,
    previous: str | None = None,
) -> Plan:
    candidates, probability = chance
    if trigger is not None and all(candidate.card.local for candidate in candidates):
        trigger = None  # it allowed what nobody uses
    tokens = size.prompt, size.completion
    made = Plan(tuple(candidates), strategy, left_out, verdict, probability, None, trigger, tokens, previous)
    return made if rules.fallback else alone(made)


def alone(plan: Plan) -> Plan:
    """The plan without anybody to stand in for the first."""
    first, *others = plan.candidates
    left_out = tuple(Excluded(other.card.id, "fallback is switched off") for other in others)
    trigger = None if first.card.local else plan.trigger
    return replace(plan, candidates=(first,), excluded=plan.excluded + left_out, trigger=trigger, reserve=())
