"""A state misread sends requests to an engine that sleeps, or away from one that works."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstreams.vllm_state import read_metrics, says_sleeping

AWAKE = b'vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="awake"} 1.0\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", (None, None)),
        (b"vllm:num_requests_waiting 4\n", (4, None)),
        (b"vllm:num_requests_waiting\t4 1700000000\n", (4, None)),
        (b'vllm:num_requests_waiting{engine="0"} 4\nvllm:num_requests_waiting{engine="1"} 2.0\n', (6, None)),
        (b'vllm:num_requests_waiting{model_name="a } b"} 4.0 1700000000\r\n', (4, None)),
        (b'vllm:num_requests_waiting_by_reason{reason="x"} 4\nvllm:num_requests_waiting_total 3\n', (None, None)),
        (b"vllm:num_requests_waiting NaN\nvllm:num_requests_waiting +Inf\n", (None, None)),
        (b"vllm:num_requests_waiting -3\n", (None, None)),
        (b"vllm:num_requests_waiting\nvllm:num_requests_waiting{\nvllm:num_requests_waiting{} x\n", (None, None)),
        (b'vllm:engine_sleep_state{sleep_state="awake"} 0\n' + AWAKE, (None, True)),
        (AWAKE * 2, (None, False)),
        (b'vllm:engine_sleep_state{sleep_state="discard_all"} 0\n', (None, None)),
    ],
)
def test_metrics_are_read_whatever_they_look_like(text: bytes, expected: tuple[int | None, bool | None]) -> None:
    assert read_metrics(text) == expected


LINES = st.sampled_from(
    [b"vllm:num_requests_waiting", b"vllm:engine_sleep_state", b'{sleep_state="awake"}', b" ", b"{", b"}", b"1", b"\n"]
)


@given(st.lists(LINES | st.binary(max_size=5), max_size=30).map(b"".join))
def test_no_metrics_break_the_probe(text: bytes) -> None:
    waiting, asleep = read_metrics(text)
    assert waiting is None or waiting >= 0
    assert asleep in (None, True, False)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"is_sleeping": "yes"}', b'{"is_sleeping": 1}', b"{}"])
def test_only_a_clear_word_means_asleep(body: bytes) -> None:
    assert not says_sleeping(200, body)
    assert not says_sleeping(404, b'{"is_sleeping": true}')
    assert says_sleeping(200, b'{"is_sleeping": true}')
