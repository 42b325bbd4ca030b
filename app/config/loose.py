"""Values out of data that nobody has checked: each reader gives the value in its plain type, or nothing.

What a wrong one means is left to who reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import isfinite
from typing import Any, Final

MOST: Final = 1_000_000_000


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """The texts of a list; also of one that is written as a single text."""
    found = [value] if isinstance(value, str) else items(value)
    return [each for each in found if isinstance(each, str) and each]


def number(value: Any, most: float = MOST, *, least: float | None = None) -> float | int | None:
    """A number above zero, or of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value > most:
        return None
    return value if (value > 0 if least is None else value >= least) else None


def whole(value: Any, *, least: int = 1) -> int | None:
    found = number(value, least=least)
    return int(found) if found is not None and found == int(found) else None


def decimal_of(value: Any) -> Decimal | None:
    """As it was written, not as the binary fraction nearest to it."""
    found = number(value, 1, least=0)
    return None if found is None else Decimal(str(found))
