"""Deterministic embeddings of no great depth: texts that share words have similar vectors, of length one."""

from __future__ import annotations

import hashlib
import math
import re
import struct
from typing import Final

_WORD: Final = re.compile(r"\w+")


def embed(text: str, dimensions: int) -> tuple[float, ...]:
    """A bag of words, each hashed to a few places, so that collisions do not decide."""
    vector = [0.0] * dimensions
    for word in _WORD.findall(text.lower()) or [text]:
        digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=16).digest()
        for (number,) in struct.iter_unpack("<I", digest):
            vector[(number >> 1) % dimensions] += 1.0 if number & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    if not length:  # words that cancelled each other out
        vector[0], length = 1.0, 1.0
    return tuple(value / length for value in vector)
