"""Goals that somebody stated, and whether they are met: by name and bound, like `local_share=0.8`. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple

from app.config.problems import nearest
from app.core.errors import Unprocessable
from app.spend.figures import Figures, Part, kind_of, share
from app.spend.sums import Sums

Word = Literal["met", "missed", "unknown"]


class Goal(NamedTuple):
    name: str
    bound: float


class Measured(NamedTuple):
    """What goals are held against. `known_usd_per_request` leaves out what has no price."""

    total: Figures
    known_usd_per_request: float | None
    kinds: Mapping[tuple[str, str | None], Sums]


class Judged(Part):
    """A goal and what became of it."""

    goal: str
    bound: float
    at_least: bool
    """Else: at most."""
    measured: float | None
    verdict: Word


class Rule(NamedTuple):
    """How a goal is measured. `partial`: the measure may miss something that only makes it larger."""

    at_least: bool
    measure: Callable[[Measured], float | None]
    partial: Callable[[Measured], bool] = lambda measured: False


def _whole(measured: Measured) -> Sums:
    """Of all upstreams together."""
    whole = Sums()
    for (_, kind), sums in measured.kinds.items():
        if kind is None:
            whole.update(sums)
    return whole


def _seconds(kind: str, name: str) -> Callable[[Measured], float | None]:
    def measure(measured: Measured) -> float | None:
        found: float | None = getattr(getattr(kind_of("", None, _whole(measured), 0), kind), name)
        return found

    return measure


def _quality(measured: Measured) -> float | None:
    return kind_of("", None, _whole(measured), 0).quality


RULES: Final[Mapping[str, Rule]] = {
    "local_share": Rule(True, lambda each: share(each.total.local_answers, each.total.answers)),
    "availability": Rule(True, lambda each: share(each.total.answers, each.total.answers + each.total.failed)),
    "quality": Rule(True, _quality),
    "coverage": Rule(True, lambda each: each.total.coverage),
    "savings": Rule(True, lambda each: each.total.savings_usd),
    "cost": Rule(
        False,
        lambda each: (each.total.cost_usd or 0.0) + each.total.imputed_usd,
        lambda each: bool(each.total.unpriced),
    ),
    "cost_per_request": Rule(False, lambda each: each.known_usd_per_request, lambda each: bool(each.total.unpriced)),
    "fallback_share": Rule(False, lambda each: share(each.total.fallbacks, each.total.answers)),
    "latency_p50": Rule(False, _seconds("seconds", "p50")),
    "latency_p95": Rule(False, _seconds("seconds", "p95")),
    "latency_p99": Rule(False, _seconds("seconds", "p99")),
    "first_token_p50": Rule(False, _seconds("first_token_seconds", "p50")),
    "first_token_p95": Rule(False, _seconds("first_token_seconds", "p95")),
    "first_token_p99": Rule(False, _seconds("first_token_seconds", "p99")),
}


def goals_of(texts: Iterable[str]) -> tuple[Goal, ...]:
    """Raises `Unprocessable`."""
    goals: dict[str, Goal] = {}
    for text in texts:
        name, _, bound = text.partition("=")
        if name not in RULES:
            meant = nearest(name[:40], RULES)
            hint = f"did you mean {meant}?" if meant else f"there are: {', '.join(RULES)}"
            raise Unprocessable(f"goal: {name[:40]!r} is no goal; {hint}", param="goal")
        if name in goals:
            raise Unprocessable(f"goal: {name} is stated twice", param="goal")
        goals[name] = Goal(name, _bound(name, bound))
    return tuple(goals.values())


def _bound(name: str, text: str) -> float:
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if math.isfinite(bound) and bound >= 0:
        return bound
    raise Unprocessable(f"goal: {name} needs a number, as in {name}=0.8", param="goal")


def judged(goal: Goal, measured: Measured) -> Judged:
    rule = RULES[goal.name]
    value = rule.measure(measured)
    return Judged(
        goal=goal.name,
        bound=goal.bound,
        at_least=rule.at_least,
        measured=value,
        verdict=_verdict(rule, goal.bound, value, rule.partial(measured)),
    )


def _verdict(rule: Rule, bound: float, value: float | None, partial: bool) -> Word:
    if value is None:
        return "unknown"
    if not (value >= bound if rule.at_least else value <= bound):
        return "missed"
    return "unknown" if partial else "met"


def overall(goals: Iterable[Judged]) -> str:
    """The worst of them; none without any."""
    words = {goal.verdict for goal in goals}
    return next((word for word in ("missed", "unknown", "met") if word in words), "none")
