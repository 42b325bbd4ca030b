"""A text as numbers: counts of characters, words, lines and answer options; and its words. Pure.

Made for the classifier's trees, so these are plain counts and shares without any scaling; what they mean for the
difficulty of a request is learned elsewhere. Works on bytes: one histogram stands for every count of characters, and
`bytes.translate` cuts words many times faster than a regular expression.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.routing.tongues import folded, in_english

Numbers = NDArray[np.float32]

SYMBOLS: Final = b".,?!:;'\"()[]{}<>=+-*/\\^_$%&|#@~`\n "
WORD_GROUPS: Final = {
    "code": "function class method variable array string loop pointer compile runtime api json sql python java"
    " javascript code program script algorithm def return int void import print struct public static const var list"
    " dict tuple integer boolean null none self integers arrays strings matrix node tree linked sorted",
    "maths": "equation integral derivative theorem prove polynomial matrix vector probability equal sum product prime"
    " triangle circle angle square root log sin cos tan solve compute calculate value minimum maximum ratio percent"
    " average mean variance random group ring field ideal homomorphism subgroup isomorphic set element order continuous"
    " converges limit series graph degree dimension let suppose real integer positive",
    "reason": "why how explain compare analyze evaluate justify discuss prove derive design because therefore assume"
    " given determine find",
    "negation": "not no never except false incorrect least without neither nor cannot",
    "choice": "most best primarily likely main following which statement statements true correct according",
    "physics": "velocity acceleration mass force energy temperature pressure volume charge current voltage wavelength"
    " frequency heat gas speed density kg cm mol electron atom nucleus reaction acid base bond molecule ion orbital"
    " spin field magnetic electric",
    "biology": "cell cells gene genes protein dna rna organism species disease patient treatment blood muscle nerve"
    " tissue bone enzyme virus bacteria",
    "law": "court law plaintiff defendant contract property liability statute constitutional state evidence trial rule"
    " agreement sued jury crime murder charged amendment federal congress",
    "morals": "wrong morally moral scenario i my me main character ordinary standards clearly",
    "history": "century war king empire president government political policy party treaty revolution states united"
    " world economic society power",
    "money": "cost price dollars total each many much sold bought pay interest rate market demand supply tax income"
    " profit sales company firm bank account inflation gdp",
    "story": "she he her his they has gives each many left total hours minutes days week weeks times twice half more"
    " than per altogether",
}
MAX_NUMBER: Final = 1e9

_LETTER_KINDS: Final = (range(97, 123), range(65, 91), range(48, 58), range(128, 256))
_KINDS: Final = len(_LETTER_KINDS) + len(SYMBOLS)
_LOWERED: Final = bytes(c + 32 if 65 <= c <= 90 else c if 97 <= c <= 122 or c >= 128 else 32 for c in range(256))
_NUMERIC: Final = bytes(c if 48 <= c <= 57 or c == 46 else 32 for c in range(256))
_MARKS: Final = tuple(
    (mark[:1], mark) for mark in (b"\n\n", b"```", b"__", b"  ", b"\\", b"statement", b"must", b"should")
)
"""What is counted, after its first byte: one byte is looked for many times faster than several."""
_OPENINGS: Final = (
    (b"what", b"which", b"who", b"when", b"where"),
    (b"how", b"why"),
    (b"write", b"create", b"give", b"make", b"implement", b"generate", b"design", b"explain", b"describe"),
)


def _kinds_of_bytes() -> Numbers:
    """Which byte counts towards which kind of character."""
    table = np.zeros((256, _KINDS), dtype=np.float32)
    for kind, members in enumerate(_LETTER_KINDS):
        table[list(members), kind] = 1
    for offset, byte in enumerate(SYMBOLS):
        table[byte, len(_LETTER_KINDS) + offset] = 1
    return table


def _groups_of_words() -> tuple[dict[bytes, int], Numbers]:
    """Each word's row, and which groups that row belongs to."""
    words = sorted({word for group in WORD_GROUPS.values() for word in group.split()})
    table = np.array([[word in group.split() for group in WORD_GROUPS.values()] for word in words], dtype=np.float32)
    return {word.encode(): row for row, word in enumerate(words)}, table


_KIND_TABLE: Final = _kinds_of_bytes()
_GROUP_ROW, _GROUP_TABLE = _groups_of_words()


class Words(NamedTuple):
    """A text as the classifier sees it, and its words; those of other languages as English ones."""

    data: bytes
    in_order: list[bytes]
    distinct: set[bytes]


def read(text: str) -> Words:
    data = folded(text).encode("utf-8", "replace")
    words = in_english(words_of(data))
    return Words(data, words, set(words))


def words_of(data: bytes) -> list[bytes]:
    """The words in lower case, in their order; letters beyond ASCII stay as they are."""
    return data.translate(_LOWERED).split()


def terms_of(words: Words) -> set[bytes]:
    """What the linear heads know: single words and pairs of neighbours."""
    return words.distinct.union(map(b" ".join, pairwise(words.in_order)))


def measures(words: Words) -> Numbers:
    """The numbers of one text, always as many and in the same order."""
    data, in_order, _ = words
    characters, groups = _characters(data), _groups(in_order)
    return np.concatenate(
        (
            characters,
            characters / max(1, len(data)),
            groups,
            groups / max(1, len(in_order)),
            [*_shapes(words), *_options(data)],
        ),
        dtype=np.float32,
    )


def _characters(data: bytes) -> Numbers:
    histogram = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256).astype(np.float32)
    counts: Numbers = histogram @ _KIND_TABLE
    return counts


def _groups(in_order: Sequence[bytes]) -> Numbers:
    rows = [row for row in map(_GROUP_ROW.get, in_order) if row is not None]
    counts: Numbers = np.add.reduce(_GROUP_TABLE.take(np.array(rows, dtype=np.intp), axis=0), axis=0)
    return counts


def _shapes(words: Words) -> list[float]:
    """Lengths of words, lines and sentences, the numbers in it, and how it opens and ends."""
    data, in_order, distinct = words
    lines = list(map(len, data.split(b"\n")))
    sentences = list(map(len, data.replace(b"? ", b". ").split(b". ")))
    lengths = sorted(map(len, in_order)) or [0]
    count = len(lengths)
    numbers = data.translate(_NUMERIC).split()
    different = set(numbers)
    first = in_order[0] if in_order else b""
    return [
        *(len(data), len(in_order), sum(lengths) / count, lengths[-1], lengths[count // 2], lengths[count * 9 // 10]),
        len(distinct) / count,
        *(len(lines), lines[0], lines[-1], max(lines), sum(lines) / len(lines)),
        *(len(sentences), max(sentences), sum(sentences) / len(sentences), sentences[-1]),
        *(len(numbers), len(different), max(map(_value, different), default=0.0)),
        *(data.count(mark) if sign in data else 0 for sign, mark in _MARKS),
        *(float(first in opening) for opening in _OPENINGS),
        float(b"?" in data[-8:]),
    ]


def _value(number: bytes) -> float:
    return min(MAX_NUMBER, float(number)) if number.count(b".") < 2 and number != b"." else 0.0


def _options(data: bytes) -> list[float]:
    """The answers to choose from, as lines `A. ...`: how many there are and how long."""
    lengths = [len(line) - 3 for line in data.split(b"\n") if line[1:3] == b". " and line[:1].isupper()]
    if not lengths:
        return [0.0] * 5
    return [len(lengths), sum(lengths), max(lengths), min(lengths), max(lengths) - min(lengths)]
