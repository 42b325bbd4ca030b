"""An operator gives one number for what a stream may hold; the places that hold it must add up to no more."""

from __future__ import annotations

import pytest

from app.core.buffers import LEAST_BYTES, WHOLE_BYTES, Buffers


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("total", [LEAST_BYTES, 100_001, 262_144, 10_000_000])
def test_the_places_add_up_to_no_more_than_was_said(total: int, secure: bool) -> None:
    assert 0.8 * total < Buffers.of(total).most(secure=secure) <= total


def test_less_than_the_kernel_can_do_is_not_asked_of_it() -> None:
    assert Buffers.of(1_024) == Buffers.of(LEAST_BYTES)


def test_a_reply_that_comes_whole_is_taken_as_fast_as_it_comes() -> None:
    """It is kept whole anyway, and a small window would only make a far server slow."""
    buffers = Buffers()
    assert buffers.receive_socket(secure=True, streams=False) == WHOLE_BYTES
    assert buffers.receive_socket(secure=True, streams=True) < buffers.receive_socket(secure=False, streams=True)
