"""Training end to end on a small world: it learns, it is reproducible, and it keeps to the licences."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.lab.rows import DataUnusable, read_rows, shippable
from app.lab.train import built_in_embedder, train_router, unseen
from app.routing.classifier import Classifier
from app.routing.features import asked_text
from app.routing.weights import Weights
from tests.lab.world import EASY, HARD, RECIPE, routing, write


def test_the_trained_file_tells_hard_from_easy(trained: tuple[Path, list[str]]) -> None:
    classifier = Classifier.load(trained[0])
    hard, easy = (classifier.judge(asked_text(text.format("matrix ring 7"))) for text in (HARD, EASY))
    assert hard.score > 0.5 > easy.score
    assert hard.gain > easy.gain
    assert not hard.abstained


def test_the_same_seed_gives_the_same_file(data: Path, trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Byte for byte, figures included."""
    again = tmp_path / "again"
    train_router(data, again, RECIPE, lambda _: None)
    assert again.read_bytes() == trained[0].read_bytes()


def test_progress_is_said(trained: tuple[Path, list[str]]) -> None:
    """Minutes of silence look like a hang."""
    said = trained[1]
    assert "leaving out mmlu" in said
    assert said.index("what ships") < len(said) - 1


def test_figures_travel_with_the_weights(weights: Weights) -> None:
    """The card is written from these; a file without them could claim anything."""
    assert weights.notes["figures"]["better"]
    assert set(weights.notes["left_out"]) == {"mmlu", "mmlu_pro"}
    assert weights.notes["seed"] == RECIPE.seed


def test_rows_that_may_not_ship_are_not_learned(data: Path, weights: Weights) -> None:
    """`arc_challenge` is share-alike: it may be measured on and nothing else."""
    assert "arc_challenge" not in weights.notes["rows"]
    left = unseen(read_rows([data]), weights)
    assert {row.source for row in left.routing} == {"arc_challenge"}
    assert not any(shippable(row) for row in left.routing)


def test_quick_training_leaves_nothing_out(data: Path, tmp_path: Path) -> None:
    assert train_router(data, tmp_path / "w", RECIPE, lambda _: None, leave_out=False).notes["left_out"] == {}


def test_one_kind_of_rows_is_not_enough(tmp_path: Path) -> None:
    """A router without task types must not be written by accident."""
    write(tmp_path / "routing.jsonl", routing(10))
    with pytest.raises(DataUnusable, match="all three kinds"):
        train_router(tmp_path, tmp_path / "w", RECIPE, lambda _: None)


def test_a_missing_embedder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.lab.train.wheel_folder", lambda: None)
    with pytest.raises(DataUnusable, match="embedder"):
        built_in_embedder()


def test_figures_are_of_rows_that_were_not_seen(weights: Weights) -> None:
    """Every row is measured once, also those that are never trained on."""
    figures = weights.notes["figures"]
    counts = {suite: found["apgr"]["rows"] for suite, found in figures["routing"]["suites"].items()}
    assert counts == {"arc_challenge": 40, "mmlu": 160, "mmlu_pro": 60}
    assert figures["task"]["accuracy"]["rows"] == 108
