"""Without these a demo of embeddings finds nothing similar, or divides by zero."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from app.simulator.vectors import embed


def dot(a: str, b: str) -> float:
    return sum(x * y for x, y in zip(embed(a, 64), embed(b, 64), strict=True))


def test_shared_words_make_texts_similar() -> None:
    assert dot("the cat sat", "The cat SAT.") > 0.99
    assert dot("the cat sat", "the cat ran") > dot("the cat sat", "quite another thing")


@given(st.text(max_size=40), st.integers(1, 16))
def test_every_vector_has_length_one(text: str, dimensions: int) -> None:
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert math.isclose(math.hypot(*vector), 1)
