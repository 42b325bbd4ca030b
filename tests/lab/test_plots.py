"""The calibration plot says what the bins say."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from app.lab.plots import SIZE, calibration_lines, calibration_png, png

BINS = [{"said": 0.05, "seen": 0.0, "rows": 100}, {"said": 0.95, "seen": 1.0, "rows": 4}]


def test_lines_show_said_and_seen() -> None:
    head, low, high = calibration_lines(BINS)
    assert head.split() == ["said", "seen", "rows"]
    assert low.split()[:3] == ["0.05", "0.00", "100"] and "█" not in low and "|" in low
    assert high.count("█") == 39


def test_the_png_is_one() -> None:
    """A picture that no viewer opens helps nobody."""
    data = calibration_png(BINS)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (SIZE, SIZE)
    assert calibration_png([]) != data


def test_pixels_survive() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    data = png(picture)
    at, found = 8, b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        found += body if kind == b"IDAT" else b""
        at += 12 + length
    lines = zlib.decompress(found)
    assert lines == b"".join(b"\0" + row.tobytes() for row in picture)
