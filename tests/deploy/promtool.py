"""Prometheus' own tools, where they are installed; elsewhere these tests say so, unless they are demanded."""

from __future__ import annotations

import os
import shutil
from typing import Final

import pytest

REQUIRED: Final = "TIERWAY_REQUIRE_PROMTOOL"


def program(name: str) -> str:
    """Where it is; skips the test where it is not."""
    found = shutil.which(name)
    if found is None and os.environ.get(REQUIRED):
        pytest.fail(f"{name} is not installed, and {REQUIRED} demands it")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus); {REQUIRED}=1 demands it")
    return found
