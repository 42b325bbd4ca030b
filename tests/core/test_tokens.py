"""Bounds and estimates of tokens. The bounds guard money, the estimate only orders candidates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from app.core.tokens import at_least, bytes_of, estimate, most, upper_bound
from app.recall.embedder import TOKENIZER, wheel_folder

SIZES = st.integers(0, 10**9)


@given(st.text())
def test_a_size_is_the_bytes_on_the_wire(text: str) -> None:
    """Characters would make a Chinese text a third of what it is."""
    assert bytes_of(text) == len(text.encode("utf-8", "surrogatepass"))
    assert (bytes_of(""), bytes_of("é🦙"), bytes_of("\ud800")) == (0, 6, 3)


@given(SIZES)
def test_the_estimate_lies_between_the_bounds(size: int) -> None:
    """A reservation below the estimate would let a budget be passed."""
    assert 0 <= at_least(size) <= estimate(size) <= upper_bound(size)


@given(SIZES, SIZES)
def test_more_text_is_never_fewer_tokens(one: int, other: int) -> None:
    small, large = sorted((one, other))
    for function in (at_least, estimate, upper_bound):
        assert function(small) <= function(large)


@given(st.integers(1, 10**9))
def test_any_text_is_at_least_one_token(size: int) -> None:
    """An answer of one letter is not free."""
    assert estimate(size) >= 1
    assert all(isinstance(function(size), int) for function in (at_least, estimate, upper_bound))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    folder = wheel_folder()
    assert folder is not None
    return Tokenizer.from_file(str(folder / TOKENIZER))


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over the lazy dog. " * 20,
        "def add(a, b):\n    return a + b\n\n" * 20,
        "Über den Wolken muß die Freiheit wohl grenzenlos sein. " * 20,
        "模型会选择最便宜的能够回答的上游服务器。" * 20,
        '{"id": "call_1", "arguments": {"city": "Berlin", "unit": "celsius"}}' * 20,
        "0123456789" * 40,
    ],
)
def test_real_text_keeps_the_bounds(tokenizer: Tokenizer, text: str) -> None:
    """The bounds are meant for real tokenizers, so a real one must keep them."""
    count = len(tokenizer.encode(text, add_special_tokens=False).ids)
    size = len(text.encode())
    assert at_least(size) <= count - 1 <= upper_bound(size)  # 1: it puts a space before every text


@pytest.fixture(scope="module")
def dearest() -> Tokenizer:
    """Makes a token of every byte, after normalising: no byte-level tokenizer makes more."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


@given(st.text() | st.text(alphabet="\ufdfaa\ufb03½é日"))
def test_no_tokenizer_makes_more(dearest: Tokenizer, text: str) -> None:
    """Who knows of a character that becomes many could spend more than a budget allows."""
    assert most(text) >= max(len(dearest.encode(text).ids), len(text.encode()))


def test_plain_text_counts_by_its_bytes() -> None:
    assert (most("abc"), most("é"), most("日本"), most("\ufdfa"), most("\ud800")) == (3, 2, 6, 33, 3)
