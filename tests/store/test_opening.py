from __future__ import annotations

from pathlib import Path

import pytest

from app.store.errors import StoreUnusable
from app.store.opening import open_store


async def test_without_a_url_there_is_a_server_of_our_own(tmp_path: Path) -> None:
    """Nobody needs to install anything to try the gateway, and what it stored is there the next time."""
    async with open_store(None, tmp_path) as store:
        await store.call("SET", "k", "v")
        await store.make_durable()
        assert await store.call("CONFIG", "GET", "appendfsync") == [b"appendfsync", b"always"]
    assert not store.healthy
    seen: list[str] = []
    async with open_store(None, tmp_path, observer=lambda name, _: seen.append(name)) as store:
        assert await store.call("GET", "k") == b"v"
    assert seen[-1] == "GET"


async def test_a_url_is_used_and_nothing_is_started(tmp_path: Path, valkey: Path) -> None:
    async with open_store(f"unix://{valkey}", tmp_path / "data") as store:
        await store.ping()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("url", ["", "nonsense"])
async def test_a_url_that_is_none_is_not_passed_over(tmp_path: Path, url: str) -> None:
    """Falling back to a store of its own would split the budgets of two replicas."""
    with pytest.raises(StoreUnusable):
        async with open_store(url, tmp_path):
            raise AssertionError


async def test_when_the_store_cannot_be_used_its_server_is_stopped(tmp_path: Path) -> None:
    async with open_store(None, tmp_path) as store:
        await store.call("SET", "{tierway}:layout", "99")
    with pytest.raises(StoreUnusable, match="another release"):
        async with open_store(None, tmp_path):
            raise AssertionError
    pid = (tmp_path / "store/server.lock").read_text().split()[0]
    assert not Path(f"/proc/{pid}").exists()
