"""The built-in embedder for many short texts: what a word adds to a vector is remembered, so that only
new ones are cut into tokens.

No token of the vocabulary reaches across a blank, and a vector is the direction of the sum of its tokens' vectors: so
it is that of the sum of its words'. Words are known by their hash: no text is kept. Not for several threads at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.recall.embedder import CAP_CHARS, StaticEmbedder, capped

MOST_WORDS: Final = 4_096
"""A kilobyte each, of memory that is touched when it is needed. With one more, all are forgotten."""
_NO_WORDS: Final = ("▁", "<s>", "</s>", "<unk>")
"""What the tokenizer looks for before blanks: its own sign for one, and tokens that are no text."""

Vector = NDArray[np.float32]


class WordEmbedder:
    """The vector of one text, as `StaticEmbedder.embed` gives it."""

    def __init__(self, embedder: StaticEmbedder) -> None:
        self._embedder = embedder
        self._row_of: dict[int, int] = {}
        self._sums = np.empty((MOST_WORDS, embedder.dimensions), dtype=np.float32)

    def __call__(self, text: str) -> Vector:
        words = capped(text, CAP_CHARS).split(" ")
        keys = list(map(hash, words))
        rows = list(map(self._row_of.get, keys))
        if None in rows:
            if "" in words or any(sign in text for sign in _NO_WORDS):  # blanks in a row are tokens of their own
                whole: Vector = self._embedder.embed([text])[0]
                return whole
            self._learn(dict(zip(keys, words, strict=True)))
            rows = list(map(self._row_of.get, keys))
        total: Vector = np.add.reduce(self._sums.take(np.array(rows), axis=0), axis=0)
        total /= math.sqrt(total @ total) or 1.0
        return total

    def _learn(self, words: Mapping[int, str]) -> None:
        """Words by their hash; some of them may be known."""
        known = self._row_of
        new = [key for key in words if key not in known]
        if len(known) + len(new) > MOST_WORDS:
            known.clear()
            new = list(words)
        first = len(known)
        self._sums[first : first + len(new)] = self._embedder.sums([words[key] for key in new])
        known.update(zip(new, range(first, first + len(new)), strict=True))
