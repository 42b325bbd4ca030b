"""Replies are read alike however their bytes are cut: a wrong count here would be a wrong figure for a gateway."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bench import replies
from bench.reading import Reading

STREAM = replies.chat_stream("m", 9, 5, True)
STREAMED = STREAM.start + STREAM.token * 5 + STREAM.end
WHOLE = replies.chat("m", 9, 5)


def read(data: bytes, cuts: list[int], stream: bool) -> Reading:
    reading = Reading(stream)
    places = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        reading.feed(data[start:end])
    return reading


@given(cuts=st.lists(st.integers(0, 10_000), max_size=40))
def test_a_stream_is_read_alike_however_it_is_cut(cuts: list[int]) -> None:
    reading = read(STREAMED, cuts, stream=True)
    assert (reading.status, reading.events, reading.content) == (200, 1 + 5 + 1 + 1 + 1, True)
    assert reading.done and reading.over and reading.whole


@given(cuts=st.lists(st.integers(0, 10_000), max_size=40))
def test_a_whole_reply_is_read_alike_however_it_is_cut(cuts: list[int]) -> None:
    assert read(WHOLE, cuts, stream=False).whole


def test_a_byte_short_is_not_over() -> None:
    """A connection on which an answer is still under way must not be asked again."""
    assert not read(STREAMED[:-1], [], stream=True).over
    assert not read(WHOLE[:-1], [], stream=False).over


def test_content_starts_with_the_first_text_not_with_the_role() -> None:
    """Time to first token would otherwise be that of an empty frame, which some gateways send at once."""
    reading = Reading(stream=True)
    reading.feed(STREAM.start)
    assert reading.events == 1 and not reading.content
    reading.feed(STREAM.token)
    assert reading.content


def test_a_stream_that_never_says_done_is_not_whole() -> None:
    reading = read(STREAMED.replace(b"[DONE]", b"[GONE]"), [], stream=True)
    assert reading.over and not reading.whole


def test_an_error_is_over_and_not_whole() -> None:
    reading = read(replies.NOT_FOUND, [], stream=True)
    assert (reading.status, reading.over, reading.whole) == (404, True, False)


def test_an_empty_body_in_chunks_is_over() -> None:
    reading = read(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [], stream=False
    )
    assert reading.over and reading.closes
