"""The embedder that remembers words gives the vectors of the one that reads every text anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.recall.embedder import StaticEmbedder, wheel_folder
from app.recall.words import MOST_WORDS, WordEmbedder


@pytest.fixture(scope="module")
def plain() -> StaticEmbedder:
    folder = wheel_folder()
    assert folder is not None
    return StaticEmbedder(folder)


@pytest.fixture(scope="module")
def by_words(plain: StaticEmbedder) -> WordEmbedder:
    return WordEmbedder(plain)


WORDS = st.sampled_from(
    [
        "the",
        "thread",
        "Explain",
        "(a",
        "b);",
        "x\ny",
        "",
        "▁",
        "a▁",
        "<s>",
        "a</s>b",
        "naïve",
        "42.",
        "42",
        "2026",
        "007",
        "٣",
        "²",
        "日本",
    ]
)


@given(st.lists(WORDS | st.text(max_size=6), max_size=12))
def test_a_prompt_is_placed_the_same_whichever_words_were_seen_before(
    plain: StaticEmbedder, by_words: WordEmbedder, words: list[str]
) -> None:
    text = " ".join(words)
    np.testing.assert_allclose(by_words(text), plain.embed([text])[0], atol=2e-6)
    np.testing.assert_allclose(by_words(text), plain.embed([text])[0], atol=2e-6)  # with all its words remembered


def test_a_long_text_is_cut_like_any_other(plain: StaticEmbedder, by_words: WordEmbedder) -> None:
    text = "how long is a piece of string " * 400
    np.testing.assert_allclose(by_words(text), plain.embed([text])[0], atol=2e-6)


def test_more_words_than_are_remembered_do_not_spoil_what_comes_after(plain: StaticEmbedder) -> None:
    embedder = WordEmbedder(plain)
    for start in range(0, 2 * MOST_WORDS, 100):
        text = " ".join(f"w{number} the {number}" for number in range(start, start + 100))
        np.testing.assert_allclose(embedder(text), plain.embed([text])[0], atol=2e-6)
        assert len(embedder._row_of) <= MOST_WORDS
