"""All tests run on the event loop that the product runs on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

import pytest
import uvloop
from hypothesis import HealthCheck, settings

# A test never asserts on speed: a slow machine only takes longer.
EXAMPLES = int(os.environ.get("TESTS_EXAMPLES", "100"))
"""Of each property: fewer where only the lines that run are counted."""
settings.register_profile("tierway", deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tierway")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
