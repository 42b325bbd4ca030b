"""Without these nobody sees, takes along or deletes what is kept of a conversation, or everybody does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import pytest

from app.access.keys import Keys, KeySpec
from app.api.auth import Door
from app.api.sessions import sessions_router
from app.core.caller import ANONYMOUS, Caller
from app.core.clock import ManualClock
from app.core.tasks import TaskOwner
from app.sessions.said import NOTHING, said
from app.sessions.sessions import Sessions, Turn, place_of
from app.store.client import Store
from tests.api.site import ADMIN, error, site
from tests.sessions.talk import says, user


@dataclass
class Site:
    client: httpx2.AsyncClient
    keys: Keys
    sessions: Sessions

    async def keep(self, caller: Caller, session: str) -> None:
        turn = Turn(0, (said(user("Hello"), None, 1.0), said(says("Hi!"), "gpu/m", 2.0)), (), "gpu/m")
        await self.sessions.keep(place_of(caller, session), NOTHING, turn)

    async def key(self, name: str, tenant: str | None = None) -> tuple[Caller, dict[str, str]]:
        _, secret = await self.keys.create(KeySpec(name=name, tenant=tenant))
        await self.keys.refresh()
        return self.keys.ring.authenticate(secret), {"authorization": f"Bearer {secret}"}


@pytest.fixture
async def here(store: Store) -> AsyncIterator[Site]:
    clock = ManualClock()
    keys, tasks = Keys(store, clock), TaskOwner(lambda name, error: None)
    sessions = Sessions(store, clock, tasks, lambda name, error: None)
    door = Door(lambda: keys.ring, admin_key="boss", open_at_first=True)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(site(sessions_router(door, sessions)))
        yield Site(client, keys, sessions)


async def test_export_and_end(here: Site) -> None:
    for name in ("s-1", "a/b c", "sess_1"):
        await here.keep(ANONYMOUS, name)
        path = f"/v1/sessions/{name}"
        read = await here.client.get(path)
        assert read.status_code == 200 and read.headers["content-type"] == "application/json"
        assert read.json()["id"] == name and read.json()["messages"] == [user("Hello"), says("Hi!")]
        text = await here.client.get(path, params={"format": "markdown"})
        assert text.headers["content-type"] == "text/markdown; charset=utf-8" and "## Assistant (gpu/m)" in text.text
        gone = await here.client.delete(path)
        assert gone.json() == {"id": name, "object": "session.deleted", "deleted": True}
        for method in ("GET", "DELETE"):
            again = await here.client.request(method, path)
            assert again.status_code == 404 and error(again)["code"] == "not_found"


async def test_another_format_is_refused(here: Site) -> None:
    await here.keep(ANONYMOUS, "s")
    assert (await here.client.get("/v1/sessions/s?format=pdf")).status_code == 422


async def test_only_the_callers_own(here: Site) -> None:
    """The operator's key opens none either, and whether another has such a session cannot be told."""
    mine, my_headers = await here.key("mine", "acme")
    _, their_headers = await here.key("theirs", "other")
    _, shared_headers = await here.key("shared", "acme")
    await here.keep(mine, "s")
    never = await here.client.get("/v1/sessions/never", headers=their_headers)
    for method in ("GET", "DELETE"):
        reply = await here.client.request(method, "/v1/sessions/s", headers=their_headers)
        assert reply.status_code == 404
        assert error(reply)["message"].replace("'s'", "'never'") == error(never)["message"]
        assert (await here.client.request(method, "/v1/sessions/s", headers=ADMIN)).status_code == 401
        assert (await here.client.request(method, "/v1/sessions/s")).status_code == 401
    assert (await here.client.get("/v1/sessions/s", headers=my_headers)).status_code == 200
    assert (await here.client.delete("/v1/sessions/s", headers=shared_headers)).status_code == 200
