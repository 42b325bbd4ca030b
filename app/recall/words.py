"""The built-in embedder for many short texts: what a word adds to a vector is remembered, so that only
new ones are cut into tokens.

No token of the vocabulary reaches across a blank, and a vector is the direction of the sum of its tokens' vectors: so
it is that of the sum of its words'. Words are known by their hash: no text is kept. Not for several threads at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.recall.embedder import CAP_CHARS, StaticEmbedder, capped

MOST_WORDS: Final = 4_096
"""A kilobyte each, of memory that is touched when it is needed. With one more, all are forgotten."""
DIGITS: Final = "0123456789"
_NO_WORDS: Final = ("▁", "<s>", "</s>", "<unk>")
"""What the tokenizer looks for before blanks: its own sign for one, and tokens that are no text."""

Vector = NDArray[np.float32]


class WordEmbedder:
    """The vector of one text, as `StaticEmbedder.embed` gives it. Numbers are not remembered, there are too many: each
    is a blank and its digits, which have the first rows."""

    def __init__(self, embedder: StaticEmbedder) -> None:
        self._embedder = embedder
        self._row_of: dict[int, int] = {}
        digits = embedder.vectors(embedder.tokens(DIGITS))
        self._first = len(digits)
        self._sums = np.empty((self._first + MOST_WORDS, embedder.dimensions), dtype=np.float32)
        self._sums[: self._first] = digits

    def __call__(self, text: str) -> Vector:
        words = capped(text, CAP_CHARS).split(" ")
        keys = list(map(hash, words))
        rows: list[Any] = list(map(self._row_of.get, keys))
        if None in rows:
            if "" in words or any(sign in text for sign in _NO_WORDS):  # blanks in a row are tokens of their own
                whole: Vector = self._embedder.embed([text])[0]
                return whole
            rows = self._found(words, keys, rows)
        total: Vector = np.add.reduce(self._sums.take(np.array(rows), axis=0), axis=0)
        total /= math.sqrt(total @ total) or 1.0
        return total

    def _found(self, words: Sequence[str], keys: Sequence[int], rows: Sequence[int | None]) -> list[int]:
        """The rows of words of which some had none."""
        strange = [word for word, row in zip(words, rows, strict=True) if row is None]
        numbers = [word for word in strange if _is_number(word)]
        if len(numbers) < len(strange):
            self._learn(dict(zip(keys, words, strict=True)))
            rows = list(map(self._row_of.get, keys))
        found = [row for row in rows if row is not None]
        for number in numbers:
            found += (0, *[int(digit) + 1 for digit in number])
        return found

    def _learn(self, words: Mapping[int, str]) -> None:
        """Words by their hash; some of them may be known."""
        known = self._row_of
        new = {key: word for key, word in words.items() if key not in known and not _is_number(word)}
        if len(known) + len(new) > MOST_WORDS:
            known.clear()
            new = {key: word for key, word in words.items() if not _is_number(word)}
        first = self._first + len(known)
        self._sums[first : first + len(new)] = self._embedder.sums(list(new.values()))
        known.update(zip(new, range(first, first + len(new)), strict=True))


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()
