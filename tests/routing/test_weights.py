"""The weights file: the same contents the same bytes, and no file can do harm."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.routing.weights import Weights, WeightsUnusable, read_weights, write_weights

ARRAYS = {"b": np.arange(6, dtype=np.float16).reshape(2, 3), "a": np.array([1, -2], dtype=np.int16)}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Weights that change on the way to disk would route differently from what was measured."""
    write_weights(tmp_path / "w", Weights(ARRAYS, {"version": "1", "nested": {"x": [1.5]}}))
    found = read_weights(tmp_path / "w")
    assert found.notes == {"version": "1", "nested": {"x": [1.5]}}
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.array_equal(found.arrays[name], array)


def test_the_same_contents_are_the_same_bytes(tmp_path: Path) -> None:
    """Anyone must be able to check that the shipped file is what the data and the seed give."""
    write_weights(tmp_path / "one", Weights(ARRAYS, {"x": 1, "y": 2}))
    write_weights(tmp_path / "two", Weights(dict(reversed(ARRAYS.items())), {"y": 2, "x": 1}))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnusable):
        read_weights(tmp_path / "nothing")


def test_an_absurd_header_is_refused(tmp_path: Path) -> None:
    """A header of gigabytes is an attack or another kind of file."""
    (tmp_path / "w").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    with pytest.raises(WeightsUnusable, match="header"):
        read_weights(tmp_path / "w")


@given(cut=st.integers(0, 300), flip=st.integers(0, 200))
def test_a_damaged_file_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int) -> None:
    """Half a download must end in our error, never in a crash of the gateway."""
    path = tmp_path_factory.mktemp("w") / "w"
    write_weights(path, Weights(ARRAYS, {"version": "1"}))
    data = bytearray(path.read_bytes()[:cut])
    if flip < len(data):
        data[flip] ^= 0xFF
    path.write_bytes(bytes(data))
    try:
        read_weights(path)
    except WeightsUnusable:
        pass
