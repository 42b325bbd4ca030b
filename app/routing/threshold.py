"""`target_local`: the score below which requests stay local, so that a set share of recent traffic does. Pure.

Whoever keeps the recent scores calls this now and then, and hands the threshold to the plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

LEAST: Final = 50
ABOVE_ALL: Final = math.nextafter(1.0, 2.0)


def local_threshold(scores: Iterable[float], share: float) -> float | None:
    """Of these scores at least `share` lie below it, and no more than ties make necessary. None while too few are known
    to say."""
    known = sorted(scores)
    if len(known) < LEAST:
        return None
    stays = math.ceil(share * len(known) - 1e-9)  # 0.8 of 50 is 40, whatever floats say
    if stays <= 0:
        return 0.0
    if stays >= len(known):
        return ABOVE_ALL
    return math.nextafter(known[stays - 1], math.inf)
