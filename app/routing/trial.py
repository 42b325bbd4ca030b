"""What the two arms of a rollout did, and what should follow. Pure.

Three measures are taken of every answer: whether it failed, its milliseconds to the first token, and its quality. Each
compares the arms over the same requests' time and breaches when the treatment is worse by more than its bound *and*
chance can no longer explain it (`evidence`). Two breaches in a row take a step back; a row of failures ends it all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from app.routing.evidence import ENOUGH, Evidence

FAILED: Final = "failed"  # 0 or 1
FIRST: Final = "first"  # milliseconds
SCORE: Final = "score"  # thousandths

BATCH: Final = 20  # answers of both arms that are weighed together
LONE_MAX: Final = 2_000  # of one arm that wait for the other
BREACHES: Final = 2
ERRORS_MAX: Final = 0.02
SLOWER: Final = 1.5
QUALITY_LEAST: Final = 0.95
FEWEST_FIRSTS: Final = 20  # below which a 95th percentile says nothing
SCORED: Final = 100

FAILURES_AT_ONCE: Final = 5
CHANCE: Final = 1e-8
"""How likely a row of failures may be, by chance at control's own rate, to be held against the treatment: control's 2 %
make it five in a row, 10 % eight. At 20 requests/s that is one false alarm in two months."""

Values = tuple[int, ...]
Seen = Mapping[str, Sequence[int]]
"""What one arm did since somebody last looked: values per measure, in their order."""
Action = Literal["hold", "up", "down", "stop"]


class Ruling(NamedTuple):
    """`why` is in words for people."""

    action: Action
    why: str


@dataclass(frozen=True, slots=True)
class Measure:
    """`control` and `treatment` are the last values that were weighed; `new_*` still wait for their batch."""

    control: Values = ()
    treatment: Values = ()
    new_control: Values = ()
    new_treatment: Values = ()
    evidence: Evidence = field(default_factory=Evidence)
    breaches: int = 0

    def last(self, treatment: bool) -> Values:
        """The last values of one arm, weighed or not."""
        return (*self.treatment, *self.new_treatment) if treatment else (*self.control, *self.new_control)


@dataclass(frozen=True, slots=True)
class Trial:
    """`row` counts failures of the treatment since its last success; `beside` what control did meanwhile: how many
    answers, and how many of them failed."""

    measures: Mapping[str, Measure] = field(default_factory=dict)
    row: int = 0
    beside: tuple[int, int] = (0, 0)

    def measure(self, name: str) -> Measure:
        return self.measures.get(name, _NOTHING)


_NOTHING: Final = Measure()


# --- what is bad, and what is worse ---------------------------------------------------------------------------------

Badness = Callable[[int], float]


def _failed(control: Values) -> Badness | None:
    return float


def _slow(control: Values) -> Badness | None:
    """Slower than the bound that control's last values set; the batch itself has no say in it."""
    if len(control) < FEWEST_FIRSTS:
        return None
    limit = SLOWER * p95(control)
    return lambda first: float(first > limit)


def _poor(control: Values) -> Badness | None:
    return lambda score: 1 - score / 1_000


def _fails_more(control: Values, treatment: Values) -> str | None:
    ours, theirs = mean(treatment), mean(control)
    worse = ours > ERRORS_MAX and ours > theirs
    return f"{ours:.1%} of its answers failed, {theirs:.1%} of control's" if worse else None


def _is_slower(control: Values, treatment: Values) -> str | None:
    if min(len(control), len(treatment)) < FEWEST_FIRSTS or p95(treatment) <= SLOWER * p95(control):
        return None
    return f"its p95 to the first token is {p95(treatment) / 1_000:.2f} s, control's {p95(control) / 1_000:.2f} s"


def _is_poorer(control: Values, treatment: Values) -> str | None:
    ours, theirs = mean(treatment), mean(control)
    worse = ours < QUALITY_LEAST * theirs
    return f"its quality is {ours / 1_000:.2f}, control's {theirs / 1_000:.2f}" if worse else None


class _Rule(NamedTuple):
    """`keep`: how many values are remembered. `badness` is made from control's last values, None for not yet."""

    keep: int
    badness: Callable[[Values], Badness | None]
    worse: Callable[[Values, Values], str | None]


RULES: Final[Mapping[str, _Rule]] = {
    FAILED: _Rule(200, _failed, _fails_more),
    FIRST: _Rule(200, _slow, _is_slower),
    SCORE: _Rule(SCORED, _poor, _is_poorer),
}


# --- adding what was seen -------------------------------------------------------------------------------------------


def folded(trial: Trial, control: Seen, treatment: Seen) -> Trial:
    """The trial with what both arms did since."""
    measures = {
        name: _weighed(rule, trial.measure(name), control.get(name, ()), treatment.get(name, ()))
        for name, rule in RULES.items()
    }
    row, beside = _row(trial, control.get(FAILED, ()), treatment.get(FAILED, ()))
    return Trial(measures, row, beside)


def _weighed(rule: _Rule, measure: Measure, control: Sequence[int], treatment: Sequence[int]) -> Measure:
    """Weighs what waits, once both arms are in it and it is enough. When that is depends on numbers alone, never on
    values, so that the evidence stays what it is."""
    new_control, new_treatment = (*measure.new_control, *control), (*measure.new_treatment, *treatment)
    size = len(new_control) + len(new_treatment)
    alone = not new_control or not new_treatment
    if size < (LONE_MAX if alone else BATCH):
        return replace(measure, new_control=new_control, new_treatment=new_treatment)
    badness, evidence = rule.badness(measure.control), measure.evidence
    if badness is not None:
        bad = sum(map(badness, new_control)), sum(map(badness, new_treatment))
        evidence = evidence.after(bad, (len(new_control), len(new_treatment)))
    last_control = (*measure.control, *new_control)[-rule.keep :]
    last_treatment = (*measure.treatment, *new_treatment)[-rule.keep :]
    breached = evidence.value >= ENOUGH and rule.worse(last_control, last_treatment) is not None
    return Measure(last_control, last_treatment, (), (), evidence, measure.breaches + 1 if breached else 0)


def _row(trial: Trial, control: Sequence[int], treatment: Sequence[int]) -> tuple[int, tuple[int, int]]:
    trailing = next((place for place, failed in enumerate(reversed(treatment)) if not failed), len(treatment))
    goes_on = trailing == len(treatment)
    row = trailing + (trial.row if goes_on else 0)
    if not row:
        return 0, (0, 0)
    count, failed = trial.beside if goes_on else (0, 0)
    return row, (count + len(control), failed + sum(control))


# --- judging --------------------------------------------------------------------------------------------------------


def judged(trial: Trial) -> Ruling:
    """What the numbers ask for; whether it is time for a step up is for the caller to know."""
    if _fails_at_once(trial):
        return Ruling("stop", f"it failed {trial.row} times in a row")
    for name, measure in trial.measures.items():
        if measure.breaches >= BREACHES:
            return Ruling("down", RULES[name].worse(measure.control, measure.treatment) or name)
    scores = trial.measure(SCORE)
    fewest = min(len(scores.control), len(scores.treatment))
    if fewest < SCORED:
        return Ruling("hold", f"{fewest} of {SCORED} answers are scored")
    if any(measure.breaches for measure in trial.measures.values()) or _is_poorer(scores.control, scores.treatment):
        return Ruling("hold", "it does worse than control, or may do so")
    return Ruling(
        "up", f"its quality is {mean(scores.treatment) / 1_000:.2f}, control's {mean(scores.control) / 1_000:.2f}"
    )


def _fails_at_once(trial: Trial) -> bool:
    """Not where control fails as well: mostly while the row lasts, or so often that such a row is no wonder."""
    answers, failed = trial.beside
    if trial.row < FAILURES_AT_ONCE or 2 * failed > answers:
        return False
    last = trial.measure(FAILED).last(treatment=False)[-RULES[FAILED].keep :]
    usual = (sum(last) + 0.4) / (len(last) + 20)  # 2 % while nothing is known
    return trial.row >= math.log(CHANCE) / math.log(usual)


def p95(values: Sequence[int]) -> int:
    """The value that 95 % are not above."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0
