"""From lessons to the weights of a classifier. The same lessons and seed give the same bytes.

Words first: linear heads, of which two feed the trees. The trees must see those as they will be at work, on texts the
heads have not seen; so the heads are fitted in folds, each fold's rows are judged by the others, and what is shipped
is the mean of the folds.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.core.verdict import TASKS
from app.lab.boosting import Growth, grow
from app.lab.lessons import Lesson
from app.lab.linear import Bags, Line, ridge
from app.recall.embedder import StaticEmbedder
from app.routing.classifier import TEXT_HEADS, VECTOR_SCALE
from app.routing.features import asked_text
from app.routing.forest import Forest
from app.routing.lexical import measures, read, terms_of
from app.routing.weights import Weights

Floats = NDArray[np.float64]

FORMAT: Final = 1
FOLDS: Final = 5
COMMON: Final = 5  # a word must stand in so many texts to be known
COMMON_IN_TASKS: Final = 2  # and a word or pair of words in so many of those that teach task types
PENALTIES: Final = {"level": 5.0, "gain": 5.0, "effort": 1.5}
TASK_PENALTY: Final = 0.5
_OTHER_FOLDS: Final = 1  # other folds than those that figures are measured in
SAME_CHARS: Final = 200  # prompts that begin alike are kept in one fold

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 0
    level: Growth = field(default_factory=Growth)
    gain: Growth = field(default_factory=Growth)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Texts as the classifier will see them: their terms, their measures, their vectors."""

    terms: list[set[bytes]]
    words: list[set[bytes]]
    numbers: NDArray[np.float32]
    vectors: NDArray[np.float32]


def prepare(prompts: Iterable[str], embedder: StaticEmbedder) -> Prepared:
    terms, words, numbers, gists = [], [], [], []
    for prompt in prompts:
        ask = asked_text(prompt)
        found = read(ask.text)
        terms.append(terms_of(found))
        words.append(found.distinct)
        numbers.append(measures(found))
        gists.append(ask.gist)
    return Prepared(terms, words, np.array(numbers), embedder.embed(gists))


def fit(lessons: Sequence[Lesson], prepared: Prepared, recipe: Recipe, say: Say) -> Weights:
    """The weights of a classifier that is not calibrated yet."""
    vocabulary = _vocabulary(lessons, prepared)
    row_of = {term: row for row, term in enumerate(vocabulary)}
    bags = Bags.of([sorted(row_of[term] for term in terms if term in row_of) for terms in prepared.terms], len(row_of))
    folds = np.array(
        [zlib.crc32(lesson.prompt[:SAME_CHARS].encode("utf-8", "replace"), _OTHER_FOLDS) % FOLDS for lesson in lessons]
    )
    lines: list[Line] = []
    judged = []
    for head in TEXT_HEADS:
        say(f"words: {head}")
        line, values = _folded(bags, folds, *_targets(lessons, head), PENALTIES[head])
        lines.append(line)
        judged.append(values)
    say("words: task types")
    lines += _task_lines(bags, prepared.vectors, lessons)
    numbers = np.column_stack((prepared.numbers, *judged)).astype(np.float32)
    arrays: dict[str, NDArray[Any]] = {
        "terms": np.frombuffer(b"\n".join(vocabulary), dtype=np.uint8),
        "term_heads": np.column_stack([line.terms for line in lines]).astype(np.float16),
        "vector_heads": np.column_stack([line.dense for line in lines[len(TEXT_HEADS) :]]).astype(np.float16),
        "bias": np.array([line.bias for line in lines], dtype=np.float32),
    }
    forests = []
    for head, growth in (("level", recipe.level), ("gain", recipe.gain)):
        targets, weights = _targets(lessons, head)
        chosen = np.flatnonzero(weights)
        say(f"trees: {head}, {len(chosen)} rows")
        forests.append(grow(numbers[chosen], targets[chosen], weights[chosen], recipe.seed, growth))
    forest = Forest.joined(forests)
    arrays["bases"] = forest.bases
    arrays["questions"] = forest.questions.astype(np.int16)
    arrays["thresholds"] = forest.thresholds
    arrays["leaves"] = forest.leaves.astype(np.float16)
    return Weights(arrays, {"version": f"{FORMAT}-{_digest(arrays)}"})


def _fold(prompt: str) -> int:
    return zlib.crc32(prompt[:SAME_CHARS].encode("utf-8", "replace"), _OTHER_FOLDS) % FOLDS


def _targets(lessons: Sequence[Lesson], head: str) -> tuple[Floats, Floats]:
    targets = np.array([getattr(lesson, head) for lesson in lessons], dtype=np.float64)
    weights = np.array([getattr(lesson, f"{head}_weight") for lesson in lessons], dtype=np.float64)
    return targets, weights


def _vocabulary(lessons: Sequence[Lesson], prepared: Prepared) -> list[bytes]:
    everywhere: Counter[bytes] = Counter()
    in_tasks: Counter[bytes] = Counter()
    for lesson, words, terms in zip(lessons, prepared.words, prepared.terms, strict=True):
        everywhere.update(words)
        if lesson.task_weight or lesson.effort_weight:
            in_tasks.update(terms)
    common = {word for word, count in everywhere.items() if count >= COMMON}
    return sorted(common | {term for term, count in in_tasks.items() if count >= COMMON_IN_TASKS})


def _folded(bags: Bags, folds: NDArray[Any], targets: Floats, weights: Floats, penalty: float) -> tuple[Line, Floats]:
    """The mean of the folds' heads, and what the others make of each fold's rows."""
    values = np.zeros(len(bags))
    lines = []
    for fold in range(FOLDS):
        taught = np.flatnonzero((folds != fold) & (weights > 0))
        line = ridge(bags.only(taught), np.zeros((len(taught), 0)), targets[taught], weights[taught], penalty)
        lines.append(line)
        own = np.flatnonzero(folds == fold)
        values[own] = line.values(bags.only(own), np.zeros((len(own), 0)))
    mean = Line(
        np.mean([line.terms for line in lines], axis=0), lines[0].dense, sum(line.bias for line in lines) / FOLDS
    )
    return mean, values


def _task_lines(bags: Bags, vectors: NDArray[np.float32], lessons: Sequence[Lesson]) -> list[Line]:
    tasks = np.array([lesson.task for lesson in lessons])
    weights = np.array([lesson.task_weight for lesson in lessons])
    taught = np.flatnonzero(weights)
    own = bags.only(taught)
    dense = vectors[taught].astype(np.float64) * VECTOR_SCALE
    return [
        ridge(own, dense, (tasks[taught] == task).astype(np.float64), weights[taught], TASK_PENALTY)
        for task in range(len(TASKS))
    ]


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:8]
