"""The built-in embedder against the package whose files it reads, and what happens without or with broken files."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.card import Ability
from app.core.errors import ContextLengthExceeded, UnsupportedParameter
from app.core.money import FREE
from app.core.pool import CpuPool
from app.core.request import EmbeddingRequest, Request, Terms
from app.core.upstream import Upstream
from app.recall.embedder import (
    SLICE_CHARS,
    TENSOR,
    TOKENIZER,
    WEIGHTS,
    WINDOW_CHARS,
    WINDOW_TOKENS,
    BuiltinUpstream,
    StaticEmbedder,
    _widened,
    capped,
    load_embedder,
    shortened,
    wheel_folder,
)

TERMS = Terms("req-1", "req-1")
TEXTS = [
    "How do I sort a list of dictionaries by a key in Python?",
    "Sorting dicts in a list by one of their fields",
    "The weather in Lisbon is mild in November.",
    "日本語のテキスト — ünïcödé 🙂\n\ttabs",
    "x",
    " ",
]


def required_folder() -> Path:
    folder = wheel_folder()
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder(required_folder())


@pytest.fixture
async def upstream(embedder: StaticEmbedder) -> AsyncIterator[BuiltinUpstream]:
    pool = CpuPool()
    yield BuiltinUpstream(embedder, pool)
    pool.close()


def ask(*inputs: Any, dimensions: int | None = None) -> EmbeddingRequest:
    return EmbeddingRequest("tierway/static", inputs, TERMS, {}, dimensions)


def length(vector: Sequence[float]) -> float:
    return math.sqrt(sum(number * number for number in vector))


# --- the vectors ----------------------------------------------------------------------------------------------------


def test_half_precision_is_widened_without_a_loss() -> None:
    """All there are, the tiniest included; a wrong bit would turn every classification a little."""
    halves = np.arange(65_536, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)][None]
    assert np.array_equal(_widened(finite), finite.astype(np.float32))
    single = np.ones((1, 3), dtype=np.float32)
    assert _widened(single) is single


def test_the_vectors_are_the_packages_own(embedder: StaticEmbedder) -> None:
    """Anything else would be worse vectors under the same name, and stored ones would no longer match."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from wordllama import WordLlama  # noqa: PLC0415 - its import is slow and noisy; one test pays for it

    # Its loader looks for the tokenizer in a folder of another name than the wheel has, unless told of it as a cache.
    theirs = WordLlama.load(cache_dir=required_folder(), disable_download=True).embed(TEXTS, norm=True)
    np.testing.assert_allclose(embedder.embed(TEXTS), theirs, atol=2e-6)


def test_alike_is_near_and_unlike_is_far(embedder: StaticEmbedder) -> None:
    """What the vectors are for."""
    question, same, other = embedder.embed(TEXTS[:3])
    assert question @ same > question @ other + 0.2


def test_no_text_is_a_row_of_zeros_and_never_nan(embedder: StaticEmbedder) -> None:
    """One NaN in an index spoils every search after it."""
    assert not embedder.embed([""]).any()
    assert embedder.embed([]).shape == (0, 256)


def test_the_package_itself_is_not_imported() -> None:
    """Its import brings an HTTP client and tens of megabytes into every worker."""
    code = (
        "import sys; from app.recall.embedder import *; "
        "assert load_embedder(wheel_folder()).embed(['x']).any(); "
        "assert not {'wordllama', 'requests', 'toml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.text(max_size=300))
def test_every_text_has_a_vector_of_length_one_or_none(text: str) -> None:
    vector = SHARED.embed([text])[0]
    assert not vector.any() or abs(float(np.linalg.norm(vector)) - 1) < 1e-5


SHARED = StaticEmbedder(required_folder())


def test_a_long_text_is_read_at_both_ends_only(embedder: StaticEmbedder) -> None:
    """A pasted log of a megabyte must not cost a second before routing begins."""
    text = "head " * 10 + "middle " * 1000 + "tail " * 10
    assert capped(text, 20) == f"{text[:10]} {text[-10:]}"
    assert capped("short", 20) == "short"
    np.testing.assert_array_equal(embedder.embed([text], cap=20), embedder.embed([capped(text, 20)]))
    assert not np.array_equal(embedder.embed([text]), embedder.embed([text], cap=None))


def test_shortened_vectors_are_prefixes_of_length_one(embedder: StaticEmbedder) -> None:
    whole = embedder.embed(TEXTS[:2])
    short = shortened(whole, 64)
    assert short.shape == (2, 64)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(short[0] / short[0, 0], whole[0, :64] / whole[0, 0], rtol=1e-5)


# --- the files ------------------------------------------------------------------------------------------------------


def write_folder(folder: Path, header: bytes, tokenizer: bytes | None = None) -> Path:
    for name, data in ((WEIGHTS, header), (TOKENIZER, tokenizer)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((required_folder() / name).read_bytes() if data is None else data)
    return folder


def weights(rows: int, columns: int, dtype: str = "F32", shape: Any = None, name: str = TENSOR) -> bytes:
    entry = {"dtype": dtype, "shape": shape or [rows, columns], "data_offsets": [0, rows * columns * 4]}
    header = orjson.dumps({name: entry})
    return struct.pack("<Q", len(header)) + header + bytes(rows * columns * 4)


def test_other_files_of_the_same_format_are_read(tmp_path: Path) -> None:
    """32-bit weights of another size, should a later wheel bring them."""
    made = load_embedder(write_folder(tmp_path, weights(32_000, 2)))
    assert made is not None
    assert (made.dimensions, made.parameters) == (2, 64_000)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x01",
        struct.pack("<Q", 2**60),
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
        weights(4, 2, name="other"),
        weights(4, 2, dtype="I8"),
        weights(4, 2, shape=[4]),
        weights(4, 2, shape=["a", "b"]),
        weights(4, 2, shape=[400, 2]),
        weights(4, 2, shape=[-4, 2]),
        weights(4, 2),  # fewer vectors than the tokenizer has tokens
    ],
)
def test_broken_weights_mean_no_embedder(tmp_path: Path, header: bytes) -> None:
    """The gateway must start all the same."""
    assert load_embedder(write_folder(tmp_path, header)) is None


def test_a_broken_tokenizer_means_no_embedder(tmp_path: Path) -> None:
    assert load_embedder(write_folder(tmp_path, weights(32_000, 2), b"{}")) is None


def test_missing_files_mean_no_embedder(tmp_path: Path) -> None:
    assert load_embedder(tmp_path) is None
    assert load_embedder(None) is None


def test_a_missing_package_means_no_folder() -> None:
    assert wheel_folder("no_such_package_here") is None
    assert wheel_folder("struct") is None


# --- the upstream ---------------------------------------------------------------------------------------------------


async def test_it_is_an_upstream_with_one_free_local_model(upstream: BuiltinUpstream) -> None:
    """Without any model server, `/v1/embeddings` still works, costs nothing and sends nothing away."""
    checked: Upstream = upstream
    (card,) = await checked.cards()
    assert (card.id, card.name, card.upstream, card.kind) == ("tierway/static", "static", "tierway", "builtin")
    assert (card.local, card.price, card.licence) == (True, FREE, "MIT")
    assert (card.context_window, card.abilities) == (WINDOW_TOKENS, frozenset({Ability.EMBEDDINGS}))
    await checked.close()


async def test_texts_are_embedded_in_their_order(upstream: BuiltinUpstream, embedder: StaticEmbedder) -> None:
    (card,) = await upstream.cards()
    made = await upstream.embed(ask(*TEXTS), card)
    np.testing.assert_array_equal(np.array(made.vectors, dtype=np.float32), embedder.embed(TEXTS))
    assert (made.model, made.prompt_tokens) == ("static", sum(len(embedder.tokens(text)) for text in TEXTS))


async def test_a_large_request_is_worked_off_in_slices(upstream: BuiltinUpstream, embedder: StaticEmbedder) -> None:
    """Otherwise two thousand texts of one caller hold up the classification of everybody's requests."""
    texts = [f"number {index} " + "word " * 5_000 for index in range(6)]
    assert sum(map(len, texts)) > 2 * SLICE_CHARS
    (card,) = await upstream.cards()
    made = await upstream.embed(ask(*texts), card)
    np.testing.assert_array_equal(np.array(made.vectors, dtype=np.float32), embedder.embed(texts, cap=None))


@pytest.mark.parametrize("dimensions", [64, 128, 256])
async def test_trained_dimensions_are_had(upstream: BuiltinUpstream, dimensions: int) -> None:
    (card,) = await upstream.cards()
    (vector,) = (await upstream.embed(ask("hello", dimensions=dimensions), card)).vectors
    assert len(vector) == dimensions
    assert abs(length(vector) - 1) < 1e-5


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (ask("hello", dimensions=100), "dimensions"),
        (ask("hello", dimensions=512), "dimensions"),
        (ask((1, 2)), "input"),
    ],
)
async def test_what_it_cannot_do_is_refused(upstream: BuiltinUpstream, request_: EmbeddingRequest, param: str) -> None:
    """Token lists are of another model's tokenizer: they would give vectors of nonsense."""
    (card,) = await upstream.cards()
    with pytest.raises(UnsupportedParameter) as refused:
        await upstream.embed(request_, card)
    assert refused.value.param == param


@pytest.mark.parametrize("text", ["a b c d " * WINDOW_TOKENS, " " * (WINDOW_CHARS + 1)])
async def test_a_text_beyond_the_window_is_refused_and_not_cut(upstream: BuiltinUpstream, text: str) -> None:
    """A document indexed by its first half is not found by its second."""
    (card,) = await upstream.cards()
    with pytest.raises(ContextLengthExceeded):
        await upstream.embed(ask(text[: WINDOW_CHARS + 1]), card)


async def test_it_does_not_chat(upstream: BuiltinUpstream) -> None:
    (card,) = await upstream.cards()
    with pytest.raises(UnsupportedParameter) as refused:
        async for _ in upstream.stream(Request("tierway/static", (), TERMS, "chat", {}), card):
            pass
    assert refused.value.param == "model"


async def test_without_files_there_is_no_model() -> None:
    """A wheel without its data must cost the model, not the gateway."""
    pool = CpuPool()
    upstream = BuiltinUpstream(None, pool)
    assert await upstream.cards() == ()
    pool.close()
