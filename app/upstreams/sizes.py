"""How large a model is, read from its name, and what range of complexity a size is meant for.

A guess for models of which nothing better is known; the configuration overrides it. Asking a server how large its
models are is left to the adapters.
"""

from __future__ import annotations

import re
from typing import Final

UNKNOWN: Final = (0.0, 1.0)
LARGEST: Final = (0.4, 0.9)
RANGES: Final = ((9_000_000_000, (0.0, 0.4)), (34_000_000_000, (0.2, 0.7)))
"""(up to how many parameters, range of scores); what is larger has `LARGEST`."""

_UNITS: Final = {"m": 1_000_000, "b": 1_000_000_000, "t": 1_000_000_000_000}
_LEAST: Final = 10_000_000  # a smaller number is a context window ("-1m"), not a size
# `8x7b` is eight experts; `e4b` means effective parameters. `a3b`, the active ones, is on purpose not matched.
_SIZE: Final = re.compile(r"(?<![a-z0-9.])(?:e|(\d{1,3})x)?(\d{1,4})(?:\.(\d{1,3}))?([mbt])(?![a-z0-9])", re.IGNORECASE)


def parameters_from_name(name: str) -> int | None:
    """The number of parameters a model's name states ("Qwen3-30B-A3B", "phi3:3.8b", "smollm-135M"), of several the
    largest; None when it states none."""
    sizes = [_parameters(*found.groups()) for found in _SIZE.finditer(name)]
    return max((size for size in sizes if size >= _LEAST), default=None)


def _parameters(experts: str | None, whole: str, part: str | None, unit: str) -> int:
    thousandths = int(whole) * 1_000 + int((part or "").ljust(3, "0"))
    return int(experts or 1) * thousandths * (_UNITS[unit.lower()] // 1_000)


def complexity_of(parameters: int | None) -> tuple[float, float]:
    """The range of scores (0..1) that a model of this size is meant for."""
    if parameters is None:
        return UNKNOWN
    return next((scores for most, scores in RANGES if parameters <= most), LARGEST)
