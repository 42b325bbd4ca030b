"""Static embeddings for everybody: a vector for a text in some fifty microseconds, without a network or a model server.

The vectors and the tokenizer ship inside the `wordllama` wheel. Its files are read directly, weights by mapping the
file, because importing the package costs more memory and time than everything else here. `StaticEmbedder` is plain
computing, meant for `CpuPool`; `BuiltinUpstream` offers it as a model. If the files are missing there is no model,
and nothing else breaks.
"""

from __future__ import annotations

import importlib.util
import struct
from array import array
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from tokenizers import Tokenizer

from app.core.card import Ability, Card
from app.core.errors import ContextLengthExceeded, UnsupportedParameter
from app.core.events import Event
from app.core.money import FREE
from app.core.pool import CpuPool
from app.core.request import EmbeddingRequest, Embeddings, Request

WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
TOKENIZER: Final = "tokenizers/l2_supercat_tokenizer_config.json"
TENSOR: Final = "embedding.weight"
EMBEDDER_ID: Final = "wordllama-l2-supercat-256"
TRAINED_DIMENSIONS: Final = (64, 128, 256)  # prefixes that were trained to stand alone
CAP_CHARS: Final = 2_048
WINDOW_TOKENS: Final = 8_192
WINDOW_CHARS: Final = WINDOW_TOKENS * 16  # no token of this vocabulary is longer
SLICE_CHARS: Final = 65_536  # some ten milliseconds of work
_DTYPES: Final = {"F16": "<f2", "F32": "<f4"}
_HEADER_MAX: Final = 1_048_576
_FRACTION_MOVED: Final = 23 - 10  # bits of the fraction, single and half
_SIGN_AND_MOVED: Final = np.int32(-0x7000_2000)  # without the sign's copies that a wider integer brings
_LEAST_LENGTH: Final = np.float32(1e-30)  # so that nothing stays nothing
_BIAS_MADE_GOOD: Final = np.float32(2.0 ** (127 - 15))

Vectors = NDArray[np.float32]


class EmbedderUnusable(Exception):
    """The embedder's files are missing, or are not what we know."""


def wheel_folder(package: str = "wordllama") -> Path | None:
    """Where the wheel's files are; found without importing the package."""
    spec = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def load_embedder(folder: Path | None) -> StaticEmbedder | None:
    """The embedder out of the wheel's folder, or None when it cannot be had. Some 40 ms and 16 MB."""
    try:
        return None if folder is None else StaticEmbedder(folder)
    except EmbedderUnusable:
        return None


class StaticEmbedder:
    """The mean of the vectors of a text's tokens, of length 1."""

    id = EMBEDDER_ID

    def __init__(self, folder: Path) -> None:
        self._table = _map_weights(folder / WEIGHTS)
        self._tokenizer = _read_tokenizer(folder / TOKENIZER)
        if self._tokenizer.get_vocab_size() > len(self._table):
            raise EmbedderUnusable("the tokenizer knows more tokens than there are vectors")

    @property
    def dimensions(self) -> int:
        return int(self._table.shape[1])

    @property
    def parameters(self) -> int:
        return int(self._table.size)

    def embed(self, texts: Sequence[str], cap: int | None = CAP_CHARS) -> Vectors:
        """One row per text. Of a text longer than `cap` characters only head and tail are read; None reads it all."""
        return self.pool([self.tokens(text if cap is None else capped(text, cap)) for text in texts])

    def tokens(self, text: str) -> list[int]:
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def vectors(self, tokens: Sequence[int]) -> Vectors:
        """One row per token, of whatever length."""
        return _widened(self._table.take(tokens, axis=0))

    def sums(self, texts: Sequence[str]) -> Vectors:
        """One row per text: the sum of its tokens' vectors. No text is empty."""
        token_lists = [self.tokens(text) for text in texts]
        rows = self.vectors(list(chain.from_iterable(token_lists)))
        return np.add.reduceat(rows, list(accumulate(map(len, token_lists[:-1]), initial=0)), axis=0)

    def pool(self, token_lists: Sequence[Sequence[int]]) -> Vectors:
        """One row per list of tokens; no tokens at all give a row of zeros."""
        rows = np.zeros((len(token_lists), self.dimensions), dtype=np.float32)
        for row, tokens in zip(rows, token_lists, strict=True):
            if tokens:
                np.add.reduce(self.vectors(tokens), axis=0, out=row)
        return _normalised(rows)


def capped(text: str, cap: int) -> str:
    """Head and tail of a text that is too long: what is asked stands mostly at one of its ends."""
    half = cap // 2
    return text if len(text) <= cap else f"{text[:half]} {text[-half:]}"


def shortened(vectors: Vectors, dimensions: int) -> Vectors:
    """The first dimensions alone, of length 1 again."""
    return _normalised(vectors[:, :dimensions].copy())


def _widened(rows: NDArray[Any]) -> Vectors:
    """Half-precision numbers as single ones. numpy converts them one by one; the same is done for many at a time by
    moving sign, exponent and fraction to where they belong, and making good for the other bias of the exponent."""
    if rows.dtype != np.float16:
        return rows.astype(np.float32, copy=False)
    bits = rows.view(np.int16).astype(np.int32)
    bits <<= _FRACTION_MOVED
    bits &= _SIGN_AND_MOVED
    wide = bits.view(np.float32)
    wide *= _BIAS_MADE_GOOD
    return wide


def _normalised(rows: Vectors) -> Vectors:
    lengths = np.sqrt(np.add.reduce(rows * rows, axis=1, keepdims=True))
    rows /= np.maximum(lengths, _LEAST_LENGTH)
    return rows


def _map_weights(path: Path) -> NDArray[Any]:
    """The table of a safetensors file, mapped and not read: 8 bytes of header length, a JSON header, the numbers."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _HEADER_MAX:
                raise EmbedderUnusable(f"{path.name} has no header")
            entry = orjson.loads(file.read(length))[TENSOR]
        rows, columns = entry["shape"]
        offset = 8 + length + entry["data_offsets"][0]
        # As a plain array: the memmap subclass makes every slice several times dearer.
        return np.asarray(np.memmap(path, _DTYPES[entry["dtype"]], "r", offset, (rows, columns)))
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise EmbedderUnusable(f"{path.name} cannot be mapped") from error


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions for whatever is wrong
        raise EmbedderUnusable(f"{path.name} cannot be read") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@dataclass(slots=True)
class BuiltinUpstream:
    """The embedder as the upstream `tierway` with its one model `static`."""

    embedder: StaticEmbedder | None
    pool: CpuPool
    name: str = "tierway"
    kind: str = "builtin"
    local: bool = True

    async def stream(self, request: Request, card: Card) -> AsyncGenerator[Event, None]:
        yield _refuse_chat(card)

    async def embed(self, request: EmbeddingRequest, card: Card) -> Embeddings:
        texts = [text for text in request.inputs if isinstance(text, str)]
        if self.embedder is None or len(texts) != len(request.inputs):
            raise UnsupportedParameter(f"{card.id} takes texts, not lists of tokens.", param="input")
        if request.dimensions not in (None, *TRAINED_DIMENSIONS):
            raise UnsupportedParameter(f"{card.id} makes vectors of 64, 128 or 256 dimensions.", param="dimensions")
        vectors: list[array[float]] = []
        count = 0
        for part in _slices(texts):
            # One slice at a time, so that a large request does not hold up what waits for the pool.
            rows, tokens = await self.pool.run(_embed, self.embedder, part, request.dimensions)
            vectors.extend(array("f", row.tobytes()) for row in rows)
            count += tokens
        return Embeddings(tuple(vectors), card.name, count)

    async def cards(self) -> Sequence[Card]:
        if self.embedder is None:
            return ()
        card = Card(
            id=f"{self.name}/static",
            name="static",
            upstream=self.name,
            kind=self.kind,
            local=self.local,
            abilities=frozenset({Ability.EMBEDDINGS}),
            context_window=WINDOW_TOKENS,
            price=FREE,
            parameters=self.embedder.parameters,
            licence="MIT",
            owned_by=self.name,
        )
        return (card,)

    async def close(self) -> None:
        """Nothing is open: the mapping goes with the object, the pool is its owner's."""


def _refuse_chat(card: Card) -> Event:
    raise UnsupportedParameter(f"{card.id} makes embeddings; it does not chat.", param="model")


def _slices(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    start = size = 0
    for index, text in enumerate(texts):
        if size and size + len(text) > SLICE_CHARS:
            yield texts[start:index]
            start, size = index, 0
        size += len(text)
    yield texts[start:]


def _embed(embedder: StaticEmbedder, texts: Sequence[str], dimensions: int | None) -> tuple[Vectors, int]:
    """The rows, and how many tokens they were made of. The caller's texts are refused rather than shortened."""
    token_lists = []
    for text in texts:
        tokens = embedder.tokens(text) if len(text) <= WINDOW_CHARS else None
        if tokens is None or len(tokens) > WINDOW_TOKENS:
            raise ContextLengthExceeded(f"An input is longer than {WINDOW_TOKENS} tokens.", param="input")
        token_lists.append(tokens)
    rows = embedder.pool(token_lists)
    return (rows if dimensions is None else shortened(rows, dimensions)), sum(map(len, token_lists))
