"""Numbers and words of a trained model in one plain file: the safetensors layout, which no program can hide code in.

Eight bytes of header length, a JSON header that says where each array lies, the arrays. The same contents always give
the same bytes. What the arrays mean is for those who ask for them by name.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

Array = NDArray[Any]

_DTYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I16": "<i2", "U8": "|u1"}
_NAMES: Final = {np.dtype(code): name for name, code in _DTYPES.items()}
_NOTES: Final = "__metadata__"
_HEADER_MAX: Final = 1_048_576


class WeightsUnusable(Exception):
    """The file is missing, or is not what we know."""


@dataclass(frozen=True, slots=True)
class Weights:
    """`notes` is what the maker wanted to say about the arrays."""

    arrays: Mapping[str, Array]
    notes: Mapping[str, Any]


def write_weights(path: Path, weights: Weights) -> None:
    header: dict[str, Any] = {_NOTES: {"notes": orjson.dumps(weights.notes, option=orjson.OPT_SORT_KEYS).decode()}}
    pieces: list[bytes] = []
    end = 0
    for name, array in sorted(weights.arrays.items()):
        piece = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [end, end + len(piece)],
        }
        pieces.append(piece)
        end += len(piece)
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    path.write_bytes(b"".join([struct.pack("<Q", len(text)), text, *pieces]))


def read_weights(path: Path) -> Weights:
    """Raises `WeightsUnusable` when the file is not there or not whole."""
    try:
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        if length > _HEADER_MAX:
            raise WeightsUnusable(f"{path.name} has no header")
        header = orjson.loads(data[8 : 8 + length])
        notes = orjson.loads(header.pop(_NOTES)["notes"])
        arrays = {name: _array(data, 8 + length, entry) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise WeightsUnusable(f"{path.name} cannot be read") from error
    return Weights(arrays, notes)


def _array(data: bytes, start: int, entry: Mapping[str, Any]) -> Array:
    begin, end = entry["data_offsets"]
    flat = np.frombuffer(data[start + begin : start + end], dtype=_DTYPES[entry["dtype"]])
    return flat.reshape(entry["shape"])
