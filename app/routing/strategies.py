"""In which order the models that may serve a request should be tried, and why. Pure.

Before any strategy come, in this order: a window that looks large enough, what the operator prefers for such a task,
and the side (local or paid) that a target or an emergency calls for. A strategy is one function from what is known of a
model to a key: the lowest is tried first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final, NamedTuple

from app.core.plan import Estimate
from app.core.verdict import Verdict
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


@dataclass(frozen=True, slots=True)
class Question:
    """What the order depends on besides the models. `preferred` are the places of the models that go first. `side` is
    the one that goes first: local before all else, paid only where it covers what is asked. `needed` is in tokens."""

    strategy: str
    needed: int
    rules: Rules
    signals: Signals
    verdict: Verdict | None
    preferred: tuple[int, ...] = ()
    side: str | None = None


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

Key = tuple[Any, ...]
Rank = Callable[[Profile, Estimate, bool, bool], Key]
"""Of a Profile, what is expected of it, whether it served the conversation before, whether it covers what is asked."""


def _by_file(each: Profile, _: Estimate, sticky: bool, __: bool) -> Key:
    return (not sticky, not each.local)


def _by_cost(each: Profile, estimate: Estimate, sticky: bool, covers: bool) -> Key:
    """A free small model before a free large one: the machine's time has a price as well."""
    cost, success = estimate.cost_nano, estimate.success or 0.0
    return (0.0 if covers else -success, inf if cost is None else cost, not sticky, not each.local, each.top)


def _by_quality(each: Profile, estimate: Estimate, sticky: bool, _: bool) -> Key:
    success, cost = estimate.success or 0.0, estimate.cost_nano
    return (-(success + STICKY_SUCCESS * sticky), inf if cost is None else cost, not each.local)


def _by_experience(dearest: float) -> Rank:
    def rank(each: Profile, estimate: Estimate, sticky: bool, _: bool) -> Key:
        cost = dearest if estimate.cost_nano is None else estimate.cost_nano
        wait = min(estimate.first_token_seconds or 0.0, LONGEST_WAIT)
        loss = WEIGHT_OF_COST * cost / dearest + WEIGHT_OF_WAITING * wait / LONGEST_WAIT
        return (loss - (estimate.success or 0.0) - STICKY_SUCCESS * sticky, not each.local)

    return rank


def _rank(question: Question, estimates: Sequence[Estimate]) -> Rank:
    if question.verdict is None:
        return _by_file
    if question.strategy == "quality":
        return _by_quality
    if question.strategy == "adaptive":
        return _by_experience(max((estimate.cost_nano or 0 for estimate in estimates), default=0) or 1)
    return _by_cost


def covering(profiles: Sequence[Profile], estimates: Sequence[Estimate], question: Question) -> list[bool]:
    """Whose range of complexity and learned success cover the score. Where success is all that is ranked by, and where
    there is no score, everyone's."""
    verdict, previous = question.verdict, question.signals.previous
    if verdict is None or question.strategy not in ("cost", "privacy"):
        return [True] * len(profiles)
    score = verdict.score
    successes = [estimate.success or 0.0 for estimate in estimates]
    bar = min(COVERED, OF_BEST * max(successes))
    return [
        (score <= each.top and success >= bar) or (score <= each.top + STICKY_SCORE and each.card.id == previous)
        for each, success in zip(profiles, successes, strict=True)
    ]


def ranked(
    profiles: Sequence[Profile], estimates: Sequence[Estimate], covers: Sequence[bool], question: Question
) -> list[int]:
    """Their indices, the first to try first."""
    rank, needed, previous = _rank(question, estimates), question.needed, question.signals.previous
    latest = question.rules.max_local_latency or inf
    places = {place: at for at, place in enumerate(question.preferred)}
    stay, leave = question.side == LOCAL, question.side == PAID
    keys = []
    for each, estimate, covered in zip(profiles, estimates, covers, strict=True):
        local = each.local
        group = (stay and not local) * 8 + (not covered) * 4 + (leave and local) * 2
        if local and (estimate.first_token_seconds or 0.0) > latest:
            group += 1
        keys.append(
            (
                needed - each.window if needed > each.window else 0,
                places.get(each.place, UNRANKED) if places else 0,
                group,
                rank(each, estimate, each.card.id == previous, covered),
                each.place,
            )
        )
    return sorted(range(len(keys)), key=keys.__getitem__)


def reasons(profiles: Sequence[Profile], covers: Sequence[bool], order: Sequence[int], question: Question) -> list[str]:
    """For each, by its index; the moment's circumstances are left to others."""
    if question.verdict is None:
        said = ["local, and it can do this" if each.local else "it can do this" for each in profiles]
    else:
        words = WORDS[question.strategy]
        said = [words.next if covered else words.weak for covered in covers]
        said[order[0]] = words.first if covers[order[0]] else words.strongest
    first = profiles[order[0]]
    if question.signals.previous == first.card.id:
        said[order[0]] = "keeps the conversation's model"
    elif first.local and question.side == LOCAL:
        said[order[0]] = "easy enough to stay local"
    elif not first.local and question.side == PAID:
        said[order[0]] = "too hard to stay local"
    if question.preferred:
        for at, each in enumerate(profiles):
            if each.place in question.preferred:
                said[at] = "preferred for this kind of task"
    return said


def side_of(verdict: Verdict | None, rules: Rules, previous: Profile | None, trigger: str | None) -> str | None:
    """Which side goes first: in an emergency the paid one; with a target, what the score is against the threshold, with
    some room for the side the conversation is on."""
    if trigger is not None:
        return PAID
    if verdict is None or rules.threshold is None:
        return None
    room = 0.0 if previous is None else STICKY_SCORE if previous.local else -STICKY_SCORE
    return LOCAL if verdict.score < rules.threshold + room else PAID
