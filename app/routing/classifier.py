"""How hard a request is and what kind of work it asks for: a score, a confidence and a task type in some fifty
microseconds. Pure; the weights come from a file that `lab` trains, the vector from whoever embeds.

Linear heads over words, pairs of words and the vector give a value for every task type and two inputs of small
forests, which add what can be counted in the text. Facts that the training data do not know (failing tools, going in
circles) lift the score by stated amounts. What this installation observes corrects it in `correction`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.core.verdict import TASKS, Verdict
from app.routing.features import Asked, Facts
from app.routing.forest import Forest
from app.routing.lexical import Words, measures, read, terms_of
from app.routing.scale import score_of
from app.routing.weights import Weights, WeightsUnusable, read_weights

SHIPPED: Final = Path(__file__).with_name("router.safetensors")
FORESTS: Final = ("level", "gain")
"""What the forests say."""
TEXT_HEADS: Final = (*FORESTS, "effort")
"""The linear heads that the forests read; these stand before those of the task types. What an everyday request asks for
has a head of its own, which knows nothing of examinations."""
HEADS: Final = (*TEXT_HEADS, *TASKS)
MIDDLE: Final = 0.5
SURE: Final = 0.5
"""Below this confidence the classifier abstains."""
VECTOR_SCALE: Final = 0.8

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How raw values become probabilities: log-odds are slope * value + offset. `gain_level` is how much of the level
    goes into the gain, which keeps it sane on prompts unlike those of the training. `task_scale` sharpens the task
    types, `familiar` is the share of known words that passes for familiar."""

    slope: float
    offset: float
    gain_slope: float
    gain_offset: float
    gain_level: float
    task_scale: float
    familiar: float


class Understood(NamedTuple):
    """What the words of an ask say: raw values, how familiar the words are, the likeliest of `TASKS` and its share."""

    level: float
    gain: float
    familiarity: float
    task: int
    task_share: float
    heads: tuple[float, ...]


class Classifier:
    """The model out of a weights file. Immutable, and so safe to share among threads."""

    def __init__(self, weights: Weights) -> None:
        arrays, notes = weights.arrays, weights.notes
        try:
            self.version = str(notes["version"])
            self.notes = notes
            self._row_of = {term: row for row, term in enumerate(arrays["terms"].tobytes().split(b"\n"))}
            self._term_heads = arrays["term_heads"].astype(np.float32)
            self._vector_heads = arrays["vector_heads"].astype(np.float32) * np.float32(VECTOR_SCALE)
            self._bias = arrays["bias"].astype(np.float32)
            self._forest = Forest(
                arrays["bases"].astype(np.float64),
                arrays["questions"].astype(np.intp),
                arrays["thresholds"].astype(np.float32),
                arrays["leaves"].astype(np.float32),
            )
            self._calibration = Calibration(**notes["calibration"])
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsUnusable("the weights are not those of a router") from error
        if self._term_heads.shape != (len(self._row_of), len(HEADS)) or self._bias.shape != (len(HEADS),):
            raise WeightsUnusable("the weights are for another version of this program")

    @classmethod
    def load(cls, path: Path = SHIPPED) -> Classifier:
        """Raises `WeightsUnusable` when the file is no router."""
        return cls(read_weights(path))

    def judge(self, asked: Asked, vector: Vector | None = None) -> Verdict:
        """The verdict on what `features` found; `vector` is the embedded gist, None when there is none to be had."""
        return self.verdict(self.understand(read(asked.text), vector), asked.facts)

    def understand(self, words: Words, vector: Vector | None = None) -> Understood:
        """What the words alone say: nearly all of the work, and the same for every turn that carries the same ask."""
        heads, familiarity = self._heads(words, vector)
        numbers = np.concatenate((measures(words), heads[: len(TEXT_HEADS)]), dtype=np.float32)
        level, gain = self._forest.values(numbers[None])[0].tolist()
        shares = _shares(heads[len(TEXT_HEADS) :] * self._calibration.task_scale)
        best = int(shares.argmax())
        return Understood(level, gain, familiarity, best, float(shares[best]), tuple(heads.tolist()))

    def verdict(self, understood: Understood, facts: Facts) -> Verdict:
        """The words, and what is known of the request around them."""
        level, gain, familiarity = understood[:3]
        odds = self._calibration.slope * level + self._calibration.offset
        certain = _logistic(abs(odds)) * familiarity
        abstained = certain < SURE
        lift = _lift(facts)
        return Verdict(
            score=score_of(_logistic((0.0 if abstained else odds) + lift)),
            gain=_logistic(self._gain_odds(level, gain) + lift),
            confidence=certain,
            task_type=TASKS[understood.task],
            task_confidence=understood.task_share,
            abstained=abstained,
            features=(level, gain, familiarity, *understood.heads, *facts.numbers()),
            version=self.version,
        )

    def _gain_odds(self, level: float, gain: float) -> float:
        calibration = self._calibration
        return calibration.gain_slope * (gain + calibration.gain_level * level) + calibration.gain_offset

    def _heads(self, words: Words, vector: Vector | None) -> tuple[Vector, float]:
        """The value of every linear head, and how familiar the words are: 1 for texts like those of the training."""
        find = self._row_of.get
        rows = [row for row in map(find, terms_of(words)) if row is not None]
        heads = self._bias.copy()
        if rows:
            heads += np.add.reduce(self._term_heads.take(rows, axis=0), axis=0) / math.sqrt(len(rows))
        if vector is not None:
            heads[len(TEXT_HEADS) :] += vector @ self._vector_heads
        known = sum(map(self._row_of.__contains__, words.in_order))
        return heads, min(1.0, known / max(1, len(words.in_order)) / self._calibration.familiar)


def _logistic(odds: float) -> float:
    if not -30.0 < odds < 30.0:
        odds = max(-30.0, min(30.0, odds))
    return 1.0 / (1.0 + math.exp(-odds))


def _lift(facts: Facts) -> float:
    """What the facts add to the log-odds of the score: so much for each, up to so many. Set by hand."""
    if not (facts.recent_errors or facts.recent_repeats or facts.images or facts.schema):
        return 0.0
    return (
        0.3 * min(facts.recent_errors, 4) + 0.4 * min(facts.recent_repeats, 3) + 0.1 * min(facts.images, 2)
    ) + 0.15 * facts.schema


def _shares(values: Vector) -> Vector:
    powers = np.exp(values - np.maximum.reduce(values))
    shares: Vector = powers / np.add.reduce(powers)
    return shares
