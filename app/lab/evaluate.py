"""A classifier measured on labelled rows, through the very functions that serve requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.core.verdict import TIER_NAMES, Verdict
from app.lab.control import Against, costs, decision_control, routing_control
from app.lab.metrics import Curve, auc, figure, share
from app.lab.rows import RoutingRow, Rows, TaskRow, TierRow
from app.recall.embedder import StaticEmbedder
from app.routing.classifier import MIDDLE, Classifier
from app.routing.features import asked_text
from app.routing.scale import probability_of

Floats = NDArray[np.float64]
Report = dict[str, Any]
R = TypeVar("R", RoutingRow, TierRow, TaskRow)

BINS: Final = 10
HARD: Final = 2
"""The first tier for which a small model is not enough."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows, each with the verdict on its prompt."""

    routing: tuple[tuple[RoutingRow, Verdict], ...] = ()
    tier: tuple[tuple[TierRow, Verdict], ...] = ()
    task: tuple[tuple[TaskRow, Verdict], ...] = ()

    def __add__(self, other: Judged) -> Judged:
        return Judged(self.routing + other.routing, self.tier + other.tier, self.task + other.task)


def verdicts(classifier: Classifier, embedder: StaticEmbedder | None, prompts: Iterable[str]) -> list[Verdict]:
    asks = [asked_text(prompt) for prompt in prompts]
    if embedder is None:
        return [classifier.judge(ask) for ask in asks]
    vectors = embedder.embed([ask.gist for ask in asks])
    return [classifier.judge(ask, vector) for ask, vector in zip(asks, vectors, strict=True)]


def judge(classifier: Classifier, embedder: StaticEmbedder | None, rows: Rows) -> Judged:
    def paired(members: Sequence[R]) -> tuple[tuple[R, Verdict], ...]:
        return tuple(zip(members, verdicts(classifier, embedder, [row.prompt for row in members]), strict=True))

    return Judged(paired(rows.routing), paired(rows.tier), paired(rows.task))


def evaluate(judged: Judged, version: str, seed: int = 0) -> Report:
    """Every figure there are rows for, as plain data. Raises ValueError when there are no rows."""
    everyone = [verdict.abstained for kind in (judged.routing, judged.tier, judged.task) for _, verdict in kind]
    if not everyone:
        raise ValueError("There are no labelled rows to measure on.")
    parts: Report = {}
    if judged.routing:
        parts["routing"] = _routing(judged.routing, seed)
    if judged.tier:
        parts["tier"] = _tier(judged.tier, seed)
    if judged.task:
        parts["task"] = _task(judged.task, seed)
    better = all(part["control"]["better"] for part in parts.values())
    return {"version": version, "abstained": share(np.array(everyone)), "better": better, **parts}


def _routing(judged: Sequence[tuple[RoutingRow, Verdict]], seed: int) -> Report:
    suites: Report = {}
    parts: dict[str, tuple[Floats, Floats, Floats]] = {}
    for suite in sorted({row.suite for row, _ in judged}):
        own = [(row, verdict) for row, verdict in judged if row.suite == suite]
        gains = np.array([row.strong - row.weak for row, _ in own])
        scores = np.array([verdict.gain for _, verdict in own])
        curve = Curve(scores, gains)
        suites[suite] = {
            "apgr": asdict(figure(curve.area, len(own), seed)),
            "cpt50": curve.share_for(0.5),
            "cpt80": curve.share_for(0.8),
            "apgr_score": Curve(np.array([verdict.score for _, verdict in own]), gains).area(),
            "apgr_length": Curve(np.array([float(len(row.prompt)) for row, _ in own]), gains).area(),
            "apgr_ideal": Curve(gains, gains).area(),
            "weak": float(np.mean([row.weak for row, _ in own])),
            "strong": float(np.mean([row.strong for row, _ in own])),
        }
        parts[suite] = (scores, gains, costs([row.prompt for row, _ in own]))
    return {"suites": suites, "control": _plain(routing_control(parts, seed))}


def _tier(judged: Sequence[tuple[TierRow, Verdict]], seed: int) -> Report:
    scores = np.array([verdict.score for _, verdict in judged])
    tiers = np.array([row.tier for row, _ in judged])
    hard, guess = tiers >= HARD, scores >= MIDDLE
    exact = np.array([TIER_NAMES.index(verdict.tier) for _, verdict in judged]) == tiers
    sources = np.array([row.source for row, _ in judged])
    return {
        "two_way": _shared(hard == guess, seed),
        "auc": asdict(figure(lambda counts: auc(scores, hard, counts), len(judged), seed)),
        "accuracy": _shared(exact, seed),
        "sources": {
            source: {
                "rows": int((sources == source).sum()),
                "auc": auc(scores[sources == source], hard[sources == source]),
            }
            for source in sorted(set(sources.tolist()))
        },
        "calibration": _calibration(np.array([probability_of(score) for score in scores.tolist()]), hard),
        "control": _plain(decision_control(guess, hard, seed)),
    }


def _task(judged: Sequence[tuple[TaskRow, Verdict]], seed: int) -> Report:
    truths = np.array([row.task for row, _ in judged])
    guesses = np.array([verdict.task_type for _, verdict in judged])
    kinds = np.array([row.kind for row, _ in judged])
    right = truths == guesses

    def groups(labels: NDArray[Any]) -> Report:
        return {label: _shared(right[labels == label], seed) for label in sorted(set(labels.tolist()))}

    return {
        "accuracy": _shared(right, seed),
        "kinds": groups(kinds),
        "tasks": groups(truths),
        "control": _plain(decision_control(guesses, truths, seed)),
    }


def _calibration(scores: Floats, hard: NDArray[Any]) -> list[Report]:
    """What was said and what was seen, in tenths of the score."""
    bins = np.minimum(BINS - 1, (scores * BINS).astype(int))
    return [
        {"said": float(scores[bins == b].mean()), "seen": float(hard[bins == b].mean()), "rows": int((bins == b).sum())}
        for b in range(BINS)
        if (bins == b).any()
    ]


def _shared(right: NDArray[Any], seed: int) -> Report:
    return asdict(figure(lambda counts: share(right, counts), len(right), seed))


def _plain(against: Against) -> Report:
    return {**asdict(against), "better": against.better}
