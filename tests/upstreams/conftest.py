from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.upstreams.http import AiohttpTransport, Transport


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    opened = AiohttpTransport(connect_timeout=1.0)
    yield opened
    await opened.close()
