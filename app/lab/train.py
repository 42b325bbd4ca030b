"""Training of the router, from labelled rows to the file that ships. Reproducible byte for byte from the seed.

Three questions, three kinds of fit: what do the figures say (in five folds, each measured by a fit on the others), how
does it travel (each suite left out in turn, then measured on it), and what ships (fitted on all rows whose licence
allows it, with the calibration of the folds). Whoever reads the figures must know that they are of the folds' fits.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.lab.calibrate import PLAIN, calibrated
from app.lab.evaluate import Judged, Report, evaluate, judge, verdicts
from app.lab.fitting import FOLDS, SAME_CHARS, Recipe, Say, fit, prepare
from app.lab.lessons import lessons_of
from app.lab.metrics import Curve
from app.lab.rows import DataUnusable, Row, Rows, read_rows, shippable
from app.recall.embedder import StaticEmbedder, load_embedder, wheel_folder
from app.routing.classifier import Classifier
from app.routing.weights import Weights, write_weights


def train_router(data: Path, out: Path, recipe: Recipe, say: Say, leave_out: bool = True) -> Weights:
    """Writes the weights to `out`. Raises `DataUnusable` when the rows do not suffice."""
    embedder = built_in_embedder()
    rows = read_rows([data])
    if not (rows.routing and rows.tier and rows.task):
        raise DataUnusable(f"{data} must hold rows of all three kinds: routing, tier and task")
    usable = rows.where(shippable)
    say(f"{len(rows)} rows, {len(usable)} of them may be used for a model that ships")
    calibration, figures = _measured(rows, embedder, recipe, say)
    left_out = _left_out(rows, embedder, recipe, say) if leave_out else {}
    say("what ships")
    final = _fitted(usable, embedder, recipe, say)
    notes = {
        **final.notes,
        "calibration": calibration,
        "figures": figures,
        "left_out": left_out,
        "rows": dict(Counter(row.source for kind in (usable.routing, usable.tier, usable.task) for row in kind)),
        "seed": recipe.seed,
    }
    shipped = Weights({**final.arrays, "seen": seen_marks(usable)}, notes)
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


def _fitted(rows: Rows, embedder: StaticEmbedder, recipe: Recipe, say: Say) -> Weights:
    lessons = lessons_of(rows, recipe.seed)
    return fit(lessons, prepare([lesson.prompt for lesson in lessons], embedder), recipe, say)


def _with(weights: Weights, calibration: Mapping[str, float]) -> Weights:
    return Weights(weights.arrays, {**weights.notes, "calibration": dict(calibration)})


def _measured(rows: Rows, embedder: StaticEmbedder, recipe: Recipe, say: Say) -> tuple[dict[str, float], Report]:
    """Calibration and figures, on every row by a fit that has not seen it."""
    fits, parts = [], []
    for fold in range(FOLDS):
        say(f"fold {fold + 1} of {FOLDS}")
        fits.append(_fitted(rows.where(partial(_taught, fold)), embedder, recipe, _silent))
        parts.append(rows.where(partial(_in_fold, fold)))
    raw = _all_judged(fits, parts, PLAIN, embedder)
    calibration = calibrated(raw)
    say("figures")
    return calibration, evaluate(_all_judged(fits, parts, calibration, embedder), "in folds", recipe.seed)


def _in_fold(fold: int, row: Row) -> bool:
    """Prompts that begin alike, such as one problem with several bugs, share a fold."""
    return zlib.crc32(row.prompt[:SAME_CHARS].encode("utf-8", "replace")) % FOLDS == fold


def _taught(fold: int, row: Row) -> bool:
    return shippable(row) and not _in_fold(fold, row)


def _all_judged(
    fits: Sequence[Weights], parts: Sequence[Rows], calibration: Mapping[str, float], embedder: StaticEmbedder
) -> Judged:
    return reduce(
        Judged.__add__,
        (
            judge(Classifier(_with(weights, calibration)), embedder, part)
            for weights, part in zip(fits, parts, strict=True)
        ),
    )


def _silent(_: str) -> None:
    pass


def _without(rows: Rows, source: str) -> Rows:
    return rows.where(lambda row: shippable(row) and row.source != source)


def _left_out(rows: Rows, embedder: StaticEmbedder, recipe: Recipe, say: Say) -> dict[str, dict[str, float]]:
    """APGR on every suite by a classifier that has seen nothing of it."""
    found = {}
    for suite in sorted({row.suite for row in rows.routing if shippable(row)}):
        say(f"leaving out {suite}")
        without = _without(rows, suite)
        classifier = Classifier(_with(_fitted(without, embedder, recipe, _silent), PLAIN))
        own = [row for row in rows.routing if row.suite == suite]
        gains = np.array([row.strong - row.weak for row in own])
        found_there = verdicts(classifier, embedder, [row.prompt for row in own])
        found[suite] = {
            "rows": len(own),
            "gain": Curve(np.array([verdict.gain for verdict in found_there]), gains).area(),
            "score": Curve(np.array([verdict.score for verdict in found_there]), gains).area(),
        }
    return found
