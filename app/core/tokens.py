"""Bounds and estimates of token counts, from bytes alone: no tokenizer is needed, and no model is assumed.

A token of any byte-level tokenizer holds at least one byte, so bytes bound tokens from above. The estimate is what
English prose and code average; it is used where a wrong guess costs nothing but a detour.
"""

from __future__ import annotations

import unicodedata
from typing import Final

BYTES_PER_TOKEN: Final = 4
TOKENS_PER_IMAGE: Final = 1_600  # the usual cap of a large image; only for estimates


def bytes_of(text: str) -> int:
    """In UTF-8; a lone surrogate counts as what it would be."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def upper_bound(text_bytes: int) -> int:
    """At least as many tokens as any byte-level tokenizer makes of that many bytes."""
    return text_bytes


def most(text: str) -> int:
    """At least as many tokens as any byte-level tokenizer makes of the text, those included that normalise it first:
    that turns some characters into many (U+FDFA has 3 bytes before and 33 after)."""
    if text.isascii():
        return len(text)
    if unicodedata.is_normalized("NFKC", text):
        return upper_bound(bytes_of(text))
    return upper_bound(max(bytes_of(text), bytes_of(unicodedata.normalize("NFKC", text))))


def estimate(text_bytes: int) -> int:
    """About how many tokens that many bytes of text are."""
    return -(-text_bytes // BYTES_PER_TOKEN)


def at_least(text_bytes: int) -> int:
    """Fewer tokens than almost any real text of that many bytes makes; for noticing that something was dropped."""
    return text_bytes // 12
