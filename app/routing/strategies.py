"""In which order the models that may serve a request should be tried, and why. Pure.

Before any strategy come, in this order: a window that looks large enough, what the operator prefers for such a task,
and the side (local or paid) that a target or an emergency calls for. A strategy is one function from what is known of a
model to a key: the lowest is tried first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple

from app.core.verdict import Verdict
from app.routing.emergency import FAILURES, GONE
from app.routing.field import Field
from app.routing.profiles import Profile
from app.routing.rules import Rules
from app.routing.signals import Signals

COVERED: Final = 0.8
"""The success from which a model counts as able to do a request; less if even the best can be expected to do less."""
OF_BEST: Final = 0.95
STICKY_SCORE: Final = 0.1
STICKY_SUCCESS: Final = 0.05
"""How much a score may move, or another model be better, before a conversation changes its model: a single turn says
little, and the next would change back."""
WEIGHT_OF_COST: Final = 0.15  # of the dearest candidate's
WEIGHT_OF_WAITING: Final = 0.1  # of LONGEST_WAIT
LONGEST_WAIT: Final = 10.0  # seconds
UNRANKED: Final = 1_000
LOCAL, PAID = "local", "paid"


Chains = tuple[tuple[str, tuple[int, ...]], ...]
"""Abilities, each with the places of the models that stand in first where it is needed."""


class Question(NamedTuple):
    """What the order depends on besides the models. `preferred` are the places of the models that go first. `side` is
    the one that goes first: local before all else, paid only where it covers what is asked. `needed` is in
    tokens; `sticky` is the index of the model that served the conversation before."""

    strategy: str
    needed: int
    rules: Rules
    signals: Signals
    verdict: Verdict | None
    sticky: int | None = None
    preferred: tuple[int, ...] = ()
    side: str | None = None
    chains: Chains = ()


class Words(NamedTuple):
    """Why a model is first; why it comes later; why it comes later although the first is weaker or as weak; why it is
    first although it is too weak."""

    first: str
    next: str
    weak: str
    strongest: str


WORDS: Final[Mapping[str, Words]] = {
    "cost": Words("cheapest that can do it", "can do it too", "weaker than it asks for", "nearest to what it asks for"),
    "quality": Words("best for it", "next best for it", "next best for it", "best for it"),
    "privacy": Words(
        "local, and can do it", "local, and can do it too", "local, but weaker than it asks for", "strongest local one"
    ),
    "adaptive": Words("best by experience", "next by experience", "next by experience", "best by experience"),
}

Criterion = Sequence[float]
"""Of each model a number, the lowest first."""
Criteria = tuple[Criterion, ...]


def _by_file(field: Field, covers: Sequence[bool], sticky: int | None) -> Criteria:
    there = range(len(field.profiles))
    return (
        [each.place for each in field.profiles],
        [not each.local for each in field.profiles],
        *([[at != sticky for at in there]] if sticky is not None else ()),
    )


def _by_cost(field: Field, covers: Sequence[bool], sticky: int | None) -> Criteria:
    weak = [0.0 if able else -success for able, success in zip(covers, field.successes or (), strict=True)]
    return _costs(field), weak


def _by_quality(field: Field, covers: Sequence[bool], sticky: int | None) -> Criteria:
    return _costs(field), _favoured([-success for success in field.successes or ()], sticky)


def _by_experience(field: Field, covers: Sequence[bool], sticky: int | None) -> Criteria:
    costs = [cost or 0 for cost in field.costs]
    dearest = max(costs) or 1
    losses = [
        WEIGHT_OF_COST * (dearest if known is None else cost) / dearest
        + WEIGHT_OF_WAITING * min(seconds or 0.0, LONGEST_WAIT) / LONGEST_WAIT
        - success
        for known, cost, seconds, success in zip(field.costs, costs, field.seconds, field.successes or (), strict=True)
    ]
    return (_favoured(losses, sticky),)


def _costs(field: Field) -> Criterion:
    return [inf if cost is None else cost for cost in field.costs]


def _favoured(losses: list[float], sticky: int | None) -> Criterion:
    if sticky is not None:
        losses[sticky] -= STICKY_SUCCESS
    return losses


RANKS: Final = {"cost": _by_cost, "privacy": _by_cost, "quality": _by_quality, "adaptive": _by_experience}
"""The criteria of each strategy, the finest first; and of no verdict `_by_file`."""


def covering(field: Field, question: Question) -> list[bool]:
    """Whose range of complexity and learned success cover the score. Where success is all that is ranked by, and where
    there is no score, everyone's."""
    verdict, successes = question.verdict, field.successes
    if verdict is None or successes is None or question.strategy not in ("cost", "privacy"):
        return [True] * len(field.profiles)
    score, bar = verdict.score, min(COVERED, OF_BEST * max(successes))
    covers = [score <= each.top and success >= bar for each, success in zip(field.profiles, successes, strict=True)]
    if question.sticky is not None and score <= field.profiles[question.sticky].top + STICKY_SCORE:
        covers[question.sticky] = True
    return covers


def ranked(field: Field, covers: Sequence[bool], question: Question) -> list[int]:
    """Their indices, the first to try first. Among equals it is the conversation's own, then the thriftier: the order
    they are in."""
    if len(field.profiles) == 1:
        return [0]
    sticky = question.sticky
    rank = _by_file if question.verdict is None else RANKS[question.strategy]
    order = list(range(len(field.profiles)))
    if sticky is not None:
        order.insert(0, order.pop(sticky))
    for criterion in (*rank(field, covers, sticky), *_before_any_strategy(field, covers, question)):
        order.sort(key=criterion.__getitem__)  # stable: what is equal here keeps the finer order
    return order


def _before_any_strategy(field: Field, covers: Sequence[bool], question: Question) -> Iterator[Criterion]:
    """What counts more than the strategy, the finest first; only what tells anyone from another."""
    profiles, latest, needed = field.profiles, question.rules.max_local_latency, question.needed
    if latest is not None:
        seconds = field.seconds
        yield [each.local and (wait or 0.0) > latest for each, wait in zip(profiles, seconds, strict=True)]
    if question.side == PAID:
        yield [each.local for each in profiles]
    if not all(covers):
        yield [not able for able in covers]
    if question.side == LOCAL:
        yield [not each.local for each in profiles]
    if question.preferred:
        places = {place: at for at, place in enumerate(question.preferred)}
        yield [places.get(each.place, UNRANKED) for each in profiles]
    if needed > field.smallest:
        yield [max(0, needed - each.window) for each in profiles]


def reasons(field: Field, covers: Sequence[bool], order: Sequence[int], question: Question) -> list[str]:
    """For each, by its index; the moment's circumstances are left to others."""
    profiles = field.profiles
    if question.verdict is None:
        said = ["local, and it can do this" if each.local else "it can do this" for each in profiles]
    else:
        words = WORDS[question.strategy]
        said = [words.next if covered else words.weak for covered in covers]
        said[order[0]] = words.first if covers[order[0]] else words.strongest
    first = profiles[order[0]]
    if question.sticky == order[0]:
        said[order[0]] = "keeps the conversation's model"
    elif first.local and question.side == LOCAL and question.rules.threshold is not None:
        said[order[0]] = "easy enough to stay local"
    elif not first.local and question.side == PAID:
        said[order[0]] = "too hard to stay local"
    if question.preferred:
        for at, each in enumerate(profiles):
            if each.place in question.preferred:
                said[at] = "preferred for this kind of task"
    return said


def side_of(verdict: Verdict | None, rules: Rules, previous: Profile | None, trigger: str | None) -> str | None:
    """Which side goes first: in an emergency the paid one, but not where local models fail: then the sick wait behind
    it anyway, and only by being asked can they show that they are well again. With a target, what the score is against
    the threshold, with some room for the side the conversation is on."""
    if trigger is not None:
        return LOCAL if trigger in (FAILURES, GONE) else PAID
    if verdict is None or rules.threshold is None:
        return None
    room = 0.0 if previous is None else STICKY_SCORE if previous.local else -STICKY_SCORE
    return LOCAL if verdict.score < rules.threshold + room else PAID
