"""What counts for one agent can only be listed by who knows that there is such an agent."""

from __future__ import annotations

import pytest

from app.spend.known import AGENTS, SESSIONS, Known
from app.store import layout
from app.store.client import Store
from tests.store.live import store, valkey

__all__ = ["store", "valkey"]


async def test_who_is_remembered_is_known_to_every_gateway(store: Store) -> None:
    await Known(store).remember({"qe-1", "größe"}, {("tenant:acme", "s 1"), ("", "s-2")}, 1_000.0)
    agents, sessions = await Known(store).read()
    assert set(agents) == {"qe-1", "größe"}
    assert set(sessions) == {("tenant:acme", "s 1"), ("", "s-2")}


async def test_nobody_is_nothing(store: Store) -> None:
    await Known(store).remember((), (), 1_000.0)
    assert await Known(store).read() == ([], [])
    assert await store.call("EXISTS", AGENTS, SESSIONS) == 0


async def test_only_the_latest_are_remembered_and_not_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers make up names: they must not fill the store."""
    monkeypatch.setattr("app.spend.known.MOST", 3)
    for moment in range(5):
        await Known(store).remember({f"a{moment}"}, {("", f"s{moment}")}, float(moment))
    assert await Known(store).read() == (["a4", "a3", "a2"], [("", "s4"), ("", "s3"), ("", "s2")])
    for key in (AGENTS, SESSIONS):
        assert await store.call("ZCARD", key) == 3
        assert layout.fault_of(key, await store.call("TTL", key)) is None


async def test_a_name_that_is_no_text_does_no_harm(store: Store) -> None:
    await Known(store).remember({"\ud800"}, (), 1.0)
    assert (await Known(store).read())[0] == ["\ud800"]
