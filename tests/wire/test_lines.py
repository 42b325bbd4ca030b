from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BadReply
from app.wire.lines import LineSplitter


def split(chunks: list[bytes], limit: int = 1_000) -> list[bytes]:
    splitter = LineSplitter(limit)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + splitter.end()


@given(st.lists(st.binary(max_size=12)), st.lists(st.integers(0, 80), max_size=8))
def test_the_same_lines_however_the_bytes_arrive(pieces: list[bytes], cuts: list[int]) -> None:
    body = b"\n".join(pieces)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[a:b] for a, b in itertools.pairwise(edges)]
    assert split(chunks) == split([body])
    assert split([body]) == [line for line in (raw.removesuffix(b"\r") for raw in body.split(b"\n")) if line]


@pytest.mark.parametrize(
    "chunks", [[b"x" * 11], [b"x" * 6, b"x" * 6], [b"x" * 11 + b"\n"], [b"a\n" + b"x" * 11 + b"\n"]]
)
def test_an_endless_line_cannot_fill_the_memory(chunks: list[bytes]) -> None:
    with pytest.raises(BadReply):
        split(chunks, limit=10)


def test_the_last_line_needs_no_newline() -> None:
    assert split([b'{"a":1}\r\n\n{"b"', b":2}"]) == [b'{"a":1}', b'{"b":2}']
