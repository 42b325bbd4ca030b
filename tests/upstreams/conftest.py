from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.upstreams.http import HttpTransport, Transport


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    opened = HttpTransport()
    yield opened
    await opened.close()
