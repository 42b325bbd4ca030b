"""Training of the router, from labelled rows to the file that ships. Reproducible byte for byte from the seed.

Three questions, three fits: what do the figures say (fitted on `train`, calibrated and measured on `dev`), how does it
travel (each suite left out in turn, then measured on it), and what ships (fitted on all rows whose licence allows it,
with the calibration of the first). Whoever reads the figures of the file must know that they are the first fit's.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.core.verdict import TASKS
from app.lab.calibrate import platt, task_scale
from app.lab.evaluate import HARD, evaluate, judged
from app.lab.fitting import Recipe, Say, fit, prepare
from app.lab.lessons import lessons_of
from app.lab.metrics import Curve
from app.lab.rows import DataUnusable, Row, Rows, read_rows, shippable
from app.recall.embedder import StaticEmbedder, load_embedder, wheel_folder
from app.routing.classifier import TEXT_HEADS, Classifier
from app.routing.weights import Weights, write_weights

GAIN_LEVEL: Final = 0.5
FAMILIAR_QUANTILE: Final = 0.05
PLAIN: Final[Mapping[str, float]] = {
    "slope": 1.0,
    "offset": 0.0,
    "gain_slope": 1.0,
    "gain_offset": 0.0,
    "gain_level": GAIN_LEVEL,
    "task_scale": 1.0,
    "familiar": 1.0,
}
_HEADS_AT: Final = 3  # where a verdict's features hold the linear heads, behind level, gain and familiarity


def train_router(data: Path, out: Path, recipe: Recipe, say: Say, leave_out: bool = True) -> Weights:
    """Writes the weights to `out`. Raises `DataUnusable` when the rows do not suffice."""
    embedder = built_in_embedder()
    rows = read_rows([data])
    if not (rows.routing and rows.tier and rows.task):
        raise DataUnusable(f"{data} must hold rows of all three kinds: routing, tier and task")
    usable = rows.where(shippable)
    measured = rows.where(_is_dev)
    say(f"{len(rows)} rows, {len(usable)} of them may be used for a model that ships")
    first = _fitted(usable.where(lambda row: not _is_dev(row)), embedder, recipe, say)
    calibration = _calibrated(first, measured, embedder)
    figures = evaluate(Classifier(_with(first, calibration)), embedder, measured, recipe.seed)
    travelled = _left_out(rows, embedder, recipe, say) if leave_out else {}
    say("what ships")
    notes = {
        "calibration": calibration,
        "figures": figures,
        "left_out": travelled,
        "rows": dict(Counter(row.source for kind in (usable.routing, usable.tier, usable.task) for row in kind)),
        "seed": recipe.seed,
    }
    final = _fitted(usable, embedder, recipe, say)
    shipped = Weights({**final.arrays, "seen": seen_marks(usable)}, {**final.notes, **notes})
    write_weights(out, shipped)
    return shipped


def seen_marks(rows: Rows) -> NDArray[np.int64]:
    """What tells rows that were used for fitting from others, so that nobody measures on them by mistake."""
    kinds = (rows.routing, rows.tier, rows.task)
    return np.array(sorted({_mark(row) for kind in kinds for row in kind}), dtype=np.int64)


def unseen(rows: Rows, weights: Weights) -> Rows:
    """Without the rows that the weights were fitted on."""
    seen = set(weights.arrays["seen"].tolist()) if "seen" in weights.arrays else set()
    return rows.where(lambda row: _mark(row) not in seen)


def _mark(row: Row) -> int:
    return zlib.crc32(row.prompt.encode("utf-8", "replace"))


def built_in_embedder() -> StaticEmbedder:
    embedder = load_embedder(wheel_folder())
    if embedder is None:
        raise DataUnusable("the built-in embedder's files are missing")
    return embedder


def _is_dev(row: Row) -> bool:
    """Rows without a split are dealt out by their text."""
    return row.split == "dev" if row.split else _mark(row) % 5 == 0


def _fitted(rows: Rows, embedder: StaticEmbedder, recipe: Recipe, say: Say) -> Weights:
    lessons = lessons_of(rows, recipe.seed)
    return fit(lessons, prepare([lesson.prompt for lesson in lessons], embedder), recipe, say)


def _with(weights: Weights, calibration: Mapping[str, float]) -> Weights:
    return Weights(weights.arrays, {**weights.notes, "calibration": dict(calibration)})


def _calibrated(weights: Weights, rows: Rows, embedder: StaticEmbedder) -> dict[str, float]:
    """What turns the raw values into probabilities on rows the weights have not seen."""
    classifier = Classifier(_with(weights, PLAIN))

    def features(prompts: list[str]) -> NDArray[np.float64]:
        return np.array([verdict.features for verdict in judged(classifier, embedder, prompts)])

    tier = features([row.prompt for row in rows.tier])
    routing = features([row.prompt for row in rows.routing])
    task = features([row.prompt for row in rows.task])
    slope, offset = platt(tier[:, 0], np.array([row.tier >= HARD for row in rows.tier]))
    gain = routing[:, 1] + GAIN_LEVEL * routing[:, 0]
    gain_slope, gain_offset = platt(gain, np.array([row.strong > row.weak for row in rows.routing]))
    values = task[:, _HEADS_AT + len(TEXT_HEADS) :][:, : len(TASKS)]
    return {
        "slope": slope,
        "offset": offset,
        "gain_slope": gain_slope,
        "gain_offset": gain_offset,
        "gain_level": GAIN_LEVEL,
        "task_scale": task_scale(values, np.array([TASKS.index(row.task) for row in rows.task])),
        "familiar": float(np.quantile(np.concatenate((tier, routing, task))[:, 2], FAMILIAR_QUANTILE)),
    }


def _without(rows: Rows, source: str) -> Rows:
    return rows.where(lambda row: shippable(row) and row.source != source)


def _left_out(rows: Rows, embedder: StaticEmbedder, recipe: Recipe, say: Say) -> dict[str, dict[str, float]]:
    """APGR on every suite by a classifier that has seen nothing of it."""
    found = {}
    for suite in sorted({row.suite for row in rows.routing}):
        say(f"leaving out {suite}")
        without = _without(rows, suite)
        classifier = Classifier(_with(_fitted(without, embedder, recipe, lambda _: None), PLAIN))
        own = [row for row in rows.routing if row.suite == suite]
        gains = np.array([row.strong - row.weak for row in own])
        verdicts = judged(classifier, embedder, [row.prompt for row in own])
        found[suite] = {
            "rows": len(own),
            "gain": Curve(np.array([verdict.gain for verdict in verdicts]), gains).area(),
            "score": Curve(np.array([verdict.score for verdict in verdicts]), gains).area(),
        }
    return found
