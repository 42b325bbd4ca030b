"""Without these an orchestrator sends traffic to a gateway that cannot serve, or kills one that can."""

from __future__ import annotations

import threading

import pytest

from app.api.health import Readiness, health_router
from tests.api.site import error, site


def nothing() -> bytes:
    return b""


@pytest.mark.parametrize(("ready", "status", "word"), [(True, 200, "ready"), (False, 503, "not_ready")])
async def test_readiness_is_a_status_and_tells_why(ready: bool, status: int, word: str) -> None:
    checks = {"store": "away", "upstreams": {"ollama": "ok"}}
    async with site(health_router(lambda: Readiness(ready, checks), nothing)) as client:
        reply = await client.get("/readyz")
    assert reply.status_code == status and reply.json() == {"status": word, "checks": checks}
    assert reply.headers["content-type"] == "application/json"


async def test_a_living_process_says_so_whatever_it_lacks() -> None:
    """Else a missing upstream gets every replica restarted."""
    async with site(health_router(lambda: Readiness(False, {}), nothing)) as client:
        reply = await client.get("/healthz")
    assert reply.status_code == 200 and reply.json() == {"status": "ok"}


async def test_metrics_are_made_beside_the_event_loop() -> None:
    """With many series it takes a while, in which streams would stand still."""
    threads: list[threading.Thread] = []

    def exposition() -> bytes:
        threads.append(threading.current_thread())
        return b"tierway_up 1\n"

    async with site(health_router(lambda: Readiness(True, {}), exposition)) as client:
        reply = await client.get("/metrics")
    assert reply.content == b"tierway_up 1\n" and reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert threads[0] is not threading.main_thread()


async def test_metrics_that_fail_are_a_500_of_ours() -> None:
    def exposition() -> bytes:
        raise OSError("/secret/path")

    async with site(health_router(lambda: Readiness(True, {}), exposition)) as client:
        reply = await client.get("/metrics")
    assert reply.status_code == 500 and "secret" not in error(reply)["message"]
