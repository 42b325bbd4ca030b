"""The table of feature flags, and how their values are written. What they are for a request, `app/flags.py` says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,4})?)\s*%")


class Feature(NamedTuple):
    default: bool
    off_means: str


FEATURES: Final[Mapping[str, Feature]] = {
    "MULTI_MODEL_ROUTER": Feature(True, "`auto` is the one `routing.default_model`; nothing is classified"),
    "STREAMING": Feature(True, "`stream: true` still gets valid SSE, with the whole answer in one content chunk"),
    "BUDGET_GUARD": Feature(True, "spend is still recorded, nothing is refused"),
    "CLOUD_FALLBACK": Feature(True, "no paid upstream is used unless asked for by name"),
    "LOCAL_MODELS": Feature(True, "no local upstream is used unless asked for by name"),
    "SESSIONS": Feature(True, "the session header is ignored, and the reply says so"),
    "RESUMABLE_STREAMS": Feature(True, "the resumable header is ignored, and the reply says so"),
    "SHADOW": Feature(False, "no request is also sent to a shadow model"),
}
"""Every flag by its name in `FEATURE_<NAME>`; the file writes the same names in lower case."""


def parse_percent(text: str) -> float | None:
    """`10%` -> 0.1; None for anything that is not a percentage from 0 to 100."""
    match = _PERCENT.fullmatch(text.strip())
    if match is None or (percent := float(match[1])) > 100:
        return None
    return percent / 100


def parse_flag(value: object) -> float | None:
    """The share of units for which a flag is on: true is 1, false is 0, `10%` is 0.1; None for anything else."""
    match value:
        case bool():
            return float(value)
        case str() if value.strip().lower() in ("true", "false"):
            return float(value.strip().lower() == "true")
        case str():
            return parse_percent(value)
        case _:
            return None


def flag_value(share: float) -> bool | str:
    """A share of units as the file and the environment write it."""
    return bool(share) if share in (0, 1) else f"{share:.4%}".rstrip("0%").rstrip(".") + "%"
