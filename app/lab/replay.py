"""What another strategy, threshold or price list would have chosen for past requests, and what that would have cost.
Pure: stored decisions in, figures out.

The models that were candidates then are ranked anew by the same code as a plan's, from what was expected of them then.
Who was failing or throttled waits at the end again; nobody is busy, chance and rollouts have no say. Models that a hard
rule had left out stay out: nothing was expected of them. What a request would have cost elsewhere is counted from the
tokens of its real answer where the model's price is known, else it is the estimate of its plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from app.core.card import Card
from app.core.money import Price, Tokens, cost_nano
from app.core.verdict import Verdict
from app.learning.decision import Considered, Decision
from app.routing.field import Field
from app.routing.profiles import profiles
from app.routing.rules import Rules
from app.routing.signals import QUIET
from app.routing.strategies import Question, covering, ranked, side_of
from app.routing.threshold import local_threshold

NAMED: Final = "named"
PRIVACY: Final = "privacy"
IN_LOOP: Final = "keeps the tool loop's model"
EMERGENCY: Final = "emergency"
BUSY: Final = "busy"


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What is different. `strategy` None: each request's own. `target_local` None: no share is aimed at. `prices` are
    other prices by full id; `known` gives those in force, None where unknown. `prefer` names models per task type."""

    strategy: str | None = None
    target_local: float | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    known: Callable[[str], Price | None] = lambda model: None
    max_local_latency: float | None = None
    prefer: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Share(NamedTuple):
    """One request in one world: the model (None: nobody could have answered), what it cost, what was expected of it."""

    model: str | None
    local: bool | None = None
    cost_nano: int | None = None
    success: float | None = None


class Row(NamedTuple):
    """`kept` says why nothing else could have been chosen."""

    was: Share
    would: Share
    changed: bool = False
    kept: str | None = None


class Side(NamedTuple):
    """The totals of one world. Costs are of the requests that could be priced in both."""

    cost_nano: int
    local: float | None
    success: float | None


class PerModel(NamedTuple):
    model: str
    was: int
    would: int
    was_nano: int
    would_nano: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """`threshold` is the score below which requests would have stayed local. `unpriced` requests are in no cost;
    `unanswered` had no model any more."""

    requests: int
    changed: int
    kept: Mapping[str, int]
    unpriced: int
    unanswered: int
    threshold: float | None
    was: Side
    would: Side
    models: tuple[PerModel, ...]


def replay(decisions: Sequence[Decision], otherwise: Otherwise) -> Replayed:
    """All of them in the other world. Decisions without any candidate are passed over."""
    scores = [each.score for each in decisions if each.score is not None and each.strategy != NAMED]
    threshold = None if otherwise.target_local is None else local_threshold(scores, otherwise.target_local)
    rules = Rules(threshold=threshold, max_local_latency=otherwise.max_local_latency)
    rows = [_row(each, otherwise, rules) for each in decisions if each.candidates]
    priced = [row for row in rows if row.was.cost_nano is not None and row.would.cost_nano is not None]
    return Replayed(
        requests=len(rows),
        changed=sum(row.changed for row in rows),
        kept=dict(Counter(row.kept for row in rows if row.kept is not None)),
        unpriced=len(rows) - len(priced),
        unanswered=sum(row.would.model is None for row in rows),
        threshold=threshold,
        was=_side([row.was for row in rows], [row.was for row in priced]),
        would=_side([row.would for row in rows], [row.would for row in priced]),
        models=_per_model(rows, priced),
    )


# --- one request ----------------------------------------------------------------------------------------------------


def _row(decision: Decision, otherwise: Otherwise, rules: Rules) -> Row:
    first = decision.candidates[0]
    was = _as_it_was(decision)
    kept = _kept(decision)
    chosen = first if kept is not None else _chosen(decision, otherwise, rules)
    if chosen is None:
        return Row(was, Share(None), changed=True)
    if chosen is first:
        restated = otherwise.prices.get(was.model or "")
        billed = decision.cost_nano if restated is None else _at(restated, decision)
        return Row(was, was._replace(cost_nano=billed), kept=kept)
    return Row(was, _elsewhere(decision, chosen, otherwise), changed=True)


def _kept(decision: Decision) -> str | None:
    if decision.strategy == NAMED:
        return "asked for by name"
    if decision.candidates[0].reason.startswith(IN_LOOP):
        return "in a tool loop"
    return "not classified" if decision.score is None else None


def _as_it_was(decision: Decision) -> Share:
    """Who answered, which may be one that stood in; for a request that nobody answered, who should have."""
    model = decision.model or decision.candidates[0].model
    each = next((each for each in decision.candidates if each.model == model), None)
    if each is None:
        return Share(model, None, decision.cost_nano)
    return Share(model, each.local, decision.cost_nano, each.success)


def _elsewhere(decision: Decision, chosen: Considered, otherwise: Otherwise) -> Share:
    price = otherwise.prices.get(chosen.model) or otherwise.known(chosen.model)
    nano = None
    if decision.cost_nano is not None:  # else there was no answer whose tokens could be counted
        nano = chosen.cost_nano if price is None else _at(price, decision)
    return Share(chosen.model, chosen.local, nano, chosen.success)


def _at(price: Price, decision: Decision) -> int | None:
    """What its answer costs at this price."""
    if decision.tokens_in is None or decision.tokens_out is None:
        return None
    return cost_nano(Tokens(decision.tokens_in, decision.tokens_out), price)


def _chosen(decision: Decision, otherwise: Otherwise, rules: Rules) -> Considered | None:
    """The first of the candidates in the other world; None where none is left."""
    strategy = otherwise.strategy or decision.strategy
    if ":" in decision.model_requested:  # whoever asks for auto:quality means it
        strategy = decision.strategy
    considered = [each for each in decision.candidates if strategy != PRIVACY or each.local]
    if not considered:
        return None
    question, field_ = _question(decision, considered, otherwise, rules, strategy)
    order = ranked(field_, covering(field_, question), question)
    by_id = {each.model: each for each in considered}
    return min((by_id[field_.profiles[at].card.id] for at in order), key=_waits)


def _question(
    decision: Decision, considered: Sequence[Considered], otherwise: Otherwise, rules: Rules, strategy: str
) -> tuple[Question, Field]:
    """What the plan was asked, and the field it had, as far as they are remembered."""
    thrifty = sorted(profiles([_card(each) for each in considered]), key=lambda each: each.thrift)
    by_id = {each.model: each for each in considered}
    in_order = [by_id[each.card.id] for each in thrifty]
    field_ = Field(
        thrifty,
        [_expected(each, decision, otherwise.prices.get(each.model)) for each in in_order],
        [each.first_token_seconds for each in in_order],
        [each.success or 0.0 for each in in_order],
    )
    verdict = Verdict(
        decision.score or 0.0, decision.confidence or 0.0, decision.task_type or "general", decision.classifier or ""
    )
    sticky = field_.index(decision.previous)
    preferred = otherwise.prefer.get(verdict.task_type, ())
    places = [each.place for name in preferred for each in thrifty if name in (each.card.id, each.card.name)]
    side = side_of(verdict, rules, None if sticky is None else thrifty[sticky], decision.trigger)
    return Question(strategy, 0, rules, QUIET, verdict, sticky, tuple(dict.fromkeys(places)), side), field_


def _card(each: Considered) -> Card:
    upstream, _, name = each.model.partition("/")
    top = 1.0 if each.top is None else each.top
    return Card(each.model, name, upstream, "", each.local, frozenset(), complexity=(0.0, top))


def _expected(each: Considered, decision: Decision, price: Price | None) -> int | None:
    """What the plan would have expected it to cost."""
    if price is None or decision.expected_in is None or decision.expected_out is None:
        return each.cost_nano
    return cost_nano(Tokens(decision.expected_in, decision.expected_out), price)


def _waits(each: Considered) -> bool:
    """Whether something spoke against asking it then."""
    _, *circumstances = each.reason.split("; ")
    if each.reason.startswith(EMERGENCY):
        circumstances = circumstances[1:]
    return any(words != BUSY for words in circumstances)


# --- all of them ----------------------------------------------------------------------------------------------------


def _side(shares: Sequence[Share], priced: Iterable[Share]) -> Side:
    return Side(
        sum(each.cost_nano or 0 for each in priced),
        _mean([float(each.local) for each in shares if each.local is not None]),
        _mean([each.success for each in shares if each.success is not None]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _per_model(rows: Sequence[Row], priced: Sequence[Row]) -> tuple[PerModel, ...]:
    was, would = Counter(row.was.model for row in rows), Counter(row.would.model for row in rows)
    was_nano: Counter[str | None] = Counter()
    would_nano: Counter[str | None] = Counter()
    for row in priced:
        was_nano[row.was.model] += row.was.cost_nano or 0
        would_nano[row.would.model] += row.would.cost_nano or 0
    models = sorted((model for model in {*was, *would} if model is not None), key=lambda each: (-was[each], each))
    return tuple(PerModel(each, was[each], would[each], was_nano[each], would_nano[each]) for each in models)
