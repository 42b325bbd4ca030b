from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BadReply
from app.wire.sse import Frame, SseDecoder

LINES = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"data",
        b"data: ",
        b"event: ping",
        b"event",
        b": note",
        b"id: 1",
        b"retry: 3",
        "data: 🦙é".encode(),
        b"",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


def decode(chunks: list[bytes], limit: int = 10_000) -> list[Frame]:
    decoder = SseDecoder(limit)
    frames = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    return frames + decoder.end()


@given(st.lists(st.tuples(LINES, ENDS), max_size=20), st.booleans(), st.lists(st.integers(0, 300), max_size=12))
def test_the_same_events_however_the_bytes_arrive(lines: list[tuple[bytes, bytes]], bom: bool, cuts: list[int]) -> None:
    body = (b"\xef\xbb\xbf" if bom else b"") + b"".join(line + end for line, end in lines)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[a:b] for a, b in itertools.pairwise(edges)]
    assert decode(chunks) == decode([body]) == decode([body[i : i + 1] for i in range(len(body))])


@given(st.lists(st.tuples(LINES, ENDS), max_size=3), st.lists(st.tuples(LINES, ENDS), max_size=4))
def test_a_single_event_is_the_one_that_would_be_read(
    before: list[tuple[bytes, bytes]], lines: list[tuple[bytes, bytes]]
) -> None:
    """The short way of a stream that comes event by event must not see what is not there."""
    decoder = SseDecoder(10_000)
    decoder.feed(b"".join(line + end for line, end in before))
    body = b"".join(line + end for line, end in lines)
    single = decoder.single(body)
    if single:
        assert decoder.feed(body) == [("", single)]


def test_what_comes_event_by_event_takes_the_short_way() -> None:
    decoder = SseDecoder(20)
    assert decoder.single(b"data: a\n\n") == b"a"
    assert decoder.single(b"data: " + b"a" * 15 + b"\n\n") is None  # `feed` says why
    decoder.feed(b"data: b")
    assert decoder.single(b"data: a\n\n") is None


@pytest.mark.parametrize(
    ("body", "frames"),
    [
        (b"data: a\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
        (b"data: a\r\n\r\ndata: b\r\rdata:c\n\n", [("", b"a"), ("", b"b"), ("", b"c")]),
        (b"data: a\ndata: b\n\n", [("", b"a\nb")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [("x", b"a"), ("", b"b")]),
        (b"event: ping\n\ndata: b\n\n", [("", b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("", b"a")]),
        (b": hello\n\nid: 1\nretry: 5\ndata: a\n\n", [("", b"a")]),
        (b"data:\n\ndata: \n\ndata: a\n\n", [("", b"a")]),
        (b"data: a\n\ndata: cut", [("", b"a"), ("", b"cut")]),
        (b"data: a\n\nevent: x\ndata: b\n\n", [("", b"a"), ("x", b"b")]),
        (b"", []),
    ],
)
def test_events_as_the_standard_says(body: bytes, frames: list[Frame]) -> None:
    assert decode([body]) == frames


@pytest.mark.parametrize(
    "chunks", [[b"data: " + b"x" * 60 + b"\n\n"], [b"x" * 60], [b"x" * 30, b"x" * 30], [b"data:\n" * 60]]
)
def test_an_endless_event_cannot_fill_the_memory(chunks: list[bytes]) -> None:
    with pytest.raises(BadReply):
        decode(chunks, limit=50)


def test_many_events_in_one_chunk_are_not_one_long_event() -> None:
    assert len(decode([b"data: 0123456789\n\n" * 20], limit=50)) == 20
