"""The numbers of a text: always as many, always finite, whatever bytes a stranger sends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.routing.lexical import measures, read, terms_of, words_of


def measured(text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return measures(read(text))


SIZE = len(measured(""))


@given(st.text(max_size=400) | st.binary(max_size=400).map(lambda data: data.decode("latin-1")))
def test_any_text_gives_the_same_number_of_finite_numbers(text: str) -> None:
    """A request in any language or encoding must not stop the classifier."""
    numbers = measured(text)
    assert numbers.shape == (SIZE,)
    assert numbers.dtype == np.float32
    assert np.isfinite(numbers).all()


def test_words_are_in_lower_case_and_without_marks() -> None:
    """`Fix` and `fix,` must be one word, or half of what was learned is lost."""
    assert words_of(b"Fix the BUG, in utils_2.py!") == [b"fix", b"the", b"bug", b"in", b"utils", b"py"]


def test_words_beyond_ascii_survive() -> None:
    """A German request must not fall apart into letters."""
    assert words_of("Schöne Grüße".encode()) == ["schöne".encode(), "grüße".encode()]


def test_terms_are_words_and_neighbours() -> None:
    """`write tests` and `tests write` ask for different things."""
    assert terms_of(read("Write tests now")) == {b"write", b"tests", b"now", b"write tests", b"tests now"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is it?\nA. yes\nB. no", "What is it?\nyes\nno"),
        ("add 12 and 13", "add some and some"),
        ("prove the theorem", "paint the kitchen"),
        ("short", "a much longer sentence of several words. And another."),
        ("where is it", "why is it so"),
        ("x = {}", "x is"),
    ],
)
def test_what_differs_is_seen(one: str, other: str) -> None:
    """Options, numbers, groups of words, lengths, openings and symbols each have numbers of their own."""
    assert not np.array_equal(measured(one), measured(other))


def test_absurd_numbers_are_bounded() -> None:
    """Four hundred digits must not become infinity, which no tree can judge."""
    assert np.isfinite(measured("9" * 400)).all()
    assert np.isfinite(measured("1.2.3 . 4.5")).all()
