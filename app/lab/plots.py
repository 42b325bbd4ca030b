"""The calibration plot: in the terminal, and as a PNG written by hand, for which no library is needed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Bins = Sequence[Mapping[str, Any]]

WIDTH: Final = 40
SIZE: Final = 400
_MARGIN: Final = 30
_BLACK, _GREY, _BLUE = (0, 0, 0), (190, 190, 190), (30, 90, 200)


def calibration_lines(bins: Bins) -> Iterator[str]:
    """One line per tenth: what the score said as `|`, what was seen as a bar."""
    yield f"{'said':>5} {'seen':>5} {'rows':>6}"
    for item in bins:
        bar = list(("█" * round(item["seen"] * WIDTH)).ljust(WIDTH + 1))
        bar[round(item["said"] * WIDTH)] = "|"
        yield f"{item['said']:5.2f} {item['seen']:5.2f} {item['rows']:6d} {''.join(bar).rstrip()}"


def calibration_png(bins: Bins) -> bytes:
    """Said on the horizontal axis, seen on the vertical one, larger squares for more rows, the ideal as a diagonal."""
    picture = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
    side = SIZE - 2 * _MARGIN
    for step in range(11):
        at = _MARGIN + side * step // 10
        picture[at, _MARGIN : SIZE - _MARGIN] = picture[_MARGIN : SIZE - _MARGIN, at] = (235, 235, 235)
    for step in range(side):
        picture[SIZE - _MARGIN - step, _MARGIN + step] = _GREY
    picture[SIZE - _MARGIN, _MARGIN : SIZE - _MARGIN] = picture[_MARGIN : SIZE - _MARGIN, _MARGIN] = _BLACK
    most = max((item["rows"] for item in bins), default=1)
    for item in bins:
        half = 2 + round(5 * (item["rows"] / most) ** 0.5)
        x, y = _MARGIN + round(item["said"] * side), SIZE - _MARGIN - round(item["seen"] * side)
        picture[y - half : y + half + 1, x - half : x + half + 1] = _BLUE
    return png(picture)


def png(picture: NDArray[np.uint8]) -> bytes:
    """Rows of RGB pixels as a PNG file."""
    height, width, _ = picture.shape
    lines = np.concatenate((np.zeros((height, 1), dtype=np.uint8), picture.reshape(height, -1)), axis=1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
