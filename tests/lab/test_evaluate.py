"""Evaluation through the functions that serve, and honest about what it has no rows for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.lab.evaluate import Judged, evaluate, judge, verdicts
from app.lab.metrics import Curve
from app.lab.rows import Rows, read_rows
from app.recall.embedder import StaticEmbedder
from app.routing.classifier import Classifier
from app.routing.weights import Weights


@pytest.fixture(scope="module")
def classifier(weights: Weights) -> Classifier:
    return Classifier(weights)


def test_every_figure_is_there(classifier: Classifier, embedder: StaticEmbedder, data: Path) -> None:
    report = evaluate(judge(classifier, embedder, read_rows([data])), "x", seed=1)
    assert report["better"] is True
    mmlu = report["routing"]["suites"]["mmlu"]
    assert mmlu["apgr"]["low"] < mmlu["apgr"]["value"] < mmlu["apgr"]["high"]
    assert mmlu["apgr"]["value"] > 0.6 and mmlu["cpt50"] < 0.5 < mmlu["cpt80"] + 0.3
    assert mmlu["apgr_ideal"] >= mmlu["apgr"]["value"]
    assert report["tier"]["auc"]["value"] > 0.9
    assert sum(item["rows"] for item in report["tier"]["calibration"]) == 160
    assert report["task"]["accuracy"]["value"] > 0.9
    assert set(report["task"]["kinds"]) == {"natural"}


def test_apgr_is_of_the_verdicts(classifier: Classifier, embedder: StaticEmbedder, data: Path) -> None:
    """The figure must be about the numbers that route, not about some inner value."""
    rows = [row for row in read_rows([data]).routing if row.suite == "mmlu"]
    found = verdicts(classifier, embedder, [row.prompt for row in rows])
    gains = np.array([row.strong - row.weak for row in rows])
    expected = Curve(np.array([verdict.gain for verdict in found]), gains).area()
    report = evaluate(judge(classifier, embedder, Rows(routing=tuple(rows))), "x")
    assert report["routing"]["suites"]["mmlu"]["apgr"]["value"] == pytest.approx(expected)
    assert "tier" not in report and "task" not in report


def test_it_works_without_an_embedder(classifier: Classifier, data: Path) -> None:
    rows = read_rows([data])
    assert evaluate(judge(classifier, None, Rows(task=rows.task)), "x")["task"]["accuracy"]["value"] > 0.8


def test_no_rows_are_no_figures() -> None:
    """An empty file must not pass as proof."""
    with pytest.raises(ValueError, match="no labelled rows"):
        evaluate(Judged(), "x")
