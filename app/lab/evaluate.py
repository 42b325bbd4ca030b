"""A classifier measured on labelled rows, through the very functions that serve requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.core.verdict import TIER_NAMES, Verdict
from app.lab.control import Against, costs, decision_control, routing_control
from app.lab.metrics import Curve, auc, figure, share
from app.lab.rows import RoutingRow, Rows, TaskRow, TierRow
from app.recall.embedder import StaticEmbedder
from app.routing.classifier import MIDDLE, Classifier
from app.routing.features import asked_text

Floats = NDArray[np.float64]
Report = dict[str, Any]

BINS: Final = 10
HARD: Final = 2
"""The first tier for which a small model is not enough."""


def judged(classifier: Classifier, embedder: StaticEmbedder | None, prompts: Iterable[str]) -> list[Verdict]:
    asks = [asked_text(prompt) for prompt in prompts]
    if embedder is None:
        return [classifier.judge(ask) for ask in asks]
    return [
        classifier.judge(ask, vector) for ask, vector in zip(asks, embedder.embed([a.gist for a in asks]), strict=True)
    ]


def evaluate(classifier: Classifier, embedder: StaticEmbedder | None, rows: Rows, seed: int = 0) -> Report:
    """Every figure there are rows for, as plain data. Raises ValueError when there are no rows."""
    if not len(rows):
        raise ValueError("There are no labelled rows to measure on.")
    report: Report = {"version": classifier.version, "abstained": 0.0}
    abstained: list[bool] = []
    parts: tuple[tuple[str, Sequence[Any], Callable[..., Report]], ...] = (
        ("routing", rows.routing, _routing),
        ("tier", rows.tier, _tier),
        ("task", rows.task, _task),
    )
    for name, members, measure in parts:
        if members:
            verdicts = judged(classifier, embedder, [row.prompt for row in members])
            abstained += [verdict.abstained for verdict in verdicts]
            report[name] = measure(members, verdicts, seed)
    report["abstained"] = share(np.array(abstained))
    report["better"] = all(report[name]["control"]["better"] for name, members, _ in parts if members)
    return report


def _routing(rows: Sequence[RoutingRow], verdicts: Sequence[Verdict], seed: int) -> Report:
    suites: Report = {}
    parts: dict[str, tuple[Floats, Floats, Floats]] = {}
    for suite in sorted({row.suite for row in rows}):
        own = [(row, verdict) for row, verdict in zip(rows, verdicts, strict=True) if row.suite == suite]
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


def _tier(rows: Sequence[TierRow], verdicts: Sequence[Verdict], seed: int) -> Report:
    scores = np.array([verdict.score for verdict in verdicts])
    tiers = np.array([row.tier for row in rows])
    hard, guess = tiers >= HARD, scores >= MIDDLE
    exact = np.array([TIER_NAMES.index(verdict.tier) for verdict in verdicts]) == tiers
    sources = np.array([row.source for row in rows])
    return {
        "two_way": _shared(hard == guess, seed),
        "auc": asdict(figure(lambda counts: auc(scores, hard, counts), len(rows), seed)),
        "accuracy": _shared(exact, seed),
        "sources": {
            source: {
                "rows": int((sources == source).sum()),
                "auc": auc(scores[sources == source], hard[sources == source]),
            }
            for source in sorted(set(sources.tolist()))
        },
        "calibration": _calibration(scores, hard),
        "control": _plain(decision_control(guess, hard, seed)),
    }


def _task(rows: Sequence[TaskRow], verdicts: Sequence[Verdict], seed: int) -> Report:
    truths = np.array([row.task for row in rows])
    guesses = np.array([verdict.task_type for verdict in verdicts])
    kinds = np.array([row.kind for row in rows])
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
