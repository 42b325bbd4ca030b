"""From lessons to weights: reproducible, and with only words that were seen often enough."""

from __future__ import annotations

import numpy as np
import pytest

from app.lab.fitting import COMMON, fit, prepare
from app.lab.lessons import Lesson
from app.recall.embedder import StaticEmbedder
from app.routing.classifier import HEADS
from app.routing.weights import Weights
from tests.lab.world import RECIPE, prompts

LESSONS = [
    *(Lesson(text, "x", float(hard), 1.0, float(hard) - 0.5, 1.0) for text, hard in prompts(80, 4)),
    *(Lesson(f"write the {word}", "y", task=number % 9, task_weight=1.0) for number, word in enumerate(["docs"] * 18)),
]


@pytest.fixture(scope="module")
def fitted(embedder: StaticEmbedder) -> Weights:
    return fit(LESSONS, prepare([lesson.prompt for lesson in LESSONS], embedder), RECIPE, lambda _: None)


def test_the_same_lessons_give_the_same_bytes(fitted: Weights, embedder: StaticEmbedder) -> None:
    """Anyone with the data can check what ships."""
    again = fit(LESSONS, prepare([lesson.prompt for lesson in LESSONS], embedder), RECIPE, lambda _: None)
    assert again.notes == fitted.notes
    for name, array in fitted.arrays.items():
        assert array.tobytes() == again.arrays[name].tobytes(), name


def test_every_part_has_its_shape(fitted: Weights) -> None:
    terms = fitted.arrays["terms"].tobytes().split(b"\n")
    assert terms == sorted(set(terms))
    assert fitted.arrays["term_heads"].shape == (len(terms), len(HEADS))
    assert fitted.arrays["vector_heads"].shape == (256, 9)
    assert fitted.arrays["leaves"].shape == (2 * RECIPE.level.trees, 2**RECIPE.level.depth)
    assert np.isfinite(fitted.arrays["leaves"]).all()


def test_rare_words_and_pairs_stay_out(fitted: Weights) -> None:
    """A word seen once teaches noise; pairs are learned where task types are, and nowhere else."""
    terms = set(fitted.arrays["terms"].tobytes().split(b"\n"))
    assert {b"prove", b"hello", b"write the"} <= terms
    assert b"the colour" not in terms
    counts = [sum(word in text.lower().split() for text, _ in prompts(80, 4)) for word in ("matrix", "banana")]
    assert min(counts) >= COMMON
