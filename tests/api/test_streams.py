"""Without these nobody can go on with a stream, or learns what came of it, or everybody does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import pytest

from app.access.keys import Keys, KeySpec
from app.api.auth import Door
from app.api.line import LineTimes
from app.api.streams import streams_router
from app.config.settings import Settings
from app.core.caller import Caller
from app.core.clock import ManualClock
from app.flags import Flags
from app.gateway.live import Bounds
from app.gateway.resumable import Streams, name_of
from app.store.client import Store
from app.store.streams import Lives, State, StreamStore
from tests.api.site import ADMIN, error, site
from tests.store.live import eventually

ID = "stream_1"
EVENTS = b'id: 1\ndata: {"a":1}\n\nid: 2\ndata: {"b":2}\n\nid: 3\ndata: [DONE]\n\n'


@dataclass
class Site:
    client: httpx2.AsyncClient
    keys: Keys
    calls: StreamStore

    async def key(self, name: str) -> tuple[Caller, dict[str, str]]:
        _, secret = await self.keys.create(KeySpec(name=name))
        await self.keys.refresh()
        return self.keys.ring.authenticate(secret), {"authorization": f"Bearer {secret}"}

    async def stream(self, caller: Caller) -> str:
        name = name_of(caller, ID)
        await self.calls.open(name, "a gateway")
        await self.calls.append(name, "a gateway", 3, EVENTS, State.ENDED)
        return name


@contextlib.asynccontextmanager
async def over(store: Store, lives: Lives | None = None) -> AsyncIterator[Site]:
    keys, calls = Keys(store, ManualClock()), StreamStore(store, lives=lives)
    await keys.refresh()
    flags = Flags.start(Settings().flags)
    door = Door(lambda: keys.ring, admin_key="boss", open_at_first=True)
    streams = Streams(calls, lambda: flags, "opt-in", Bounds())
    async with site(streams_router(door, streams, LineTimes())) as client:
        yield Site(client, keys, calls)


@pytest.mark.parametrize(
    ("query", "header", "first"),
    [
        *(("", None, 1), ("?after=0", None, 1), ("?after=1", None, 2), ("?after=", "", 1), ("?after=%1d1", None, 2)),
        *(("", "2", 3), ("?after=2", "1", 2), ("?after=2", "0", 1)),
    ],
)
async def test_what_comes_after_an_event(store: Store, query: str, header: str | None, first: int) -> None:
    """The header counts before the address, which a browser repeats as it was."""
    async with over(store) as it:
        caller, headers = await it.key("mine")
        await it.stream(caller)
        if header is not None:
            headers["last-event-id"] = header
        reply = await it.client.get(f"/v1/streams/{ID}{query}", headers=headers)
        assert reply.status_code == 200 and reply.content == EVENTS[EVENTS.index(b"id: %d\n" % first) :]
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-cache" and reply.headers["x-tierway-stream-id"] == ID


async def test_after_the_last_one_comes_nothing(store: Store) -> None:
    async with over(store) as it:
        caller, headers = await it.key("mine")
        await it.stream(caller)
        reply = await it.client.get(f"/v1/streams/{ID}?after=3", headers=headers)
        assert reply.status_code == 200 and reply.content == b""


@pytest.mark.parametrize(
    ("query", "header", "named"),
    [
        ("?after=x", None, "after"),
        ("?after=-1", None, "after"),
        ("?after=%0d9%1d%1dx", None, "after"),
        ("?after=" + "9" * 16, None, "after"),
        ("", "1.5", "Last-Event-ID"),
        ("", "\u0663", "Last-Event-ID"),
    ],
)
async def test_what_is_no_number_is_refused(store: Store, query: str, header: str | None, named: str) -> None:
    async with over(store) as it:
        headers = [] if header is None else [(b"last-event-id", header.encode())]
        reply = await it.client.get(f"/v1/streams/{ID}{query}", headers=headers)
        assert reply.status_code == 400 and error(reply)["param"] == named


async def test_anothers_is_as_one_that_never_was(store: Store) -> None:
    async with over(store) as it:
        caller, headers = await it.key("mine")
        _, others = await it.key("other")
        await it.stream(caller)
        for who, id in ((others, ID), (headers, "stream_2")):
            reply = await it.client.get(f"/v1/streams/{id}", headers=who)
            assert (reply.status_code, error(reply)["code"]) == (404, "not_found")
        for nobody in ({}, ADMIN, {"authorization": "Bearer wrong"}):
            assert (await it.client.get(f"/v1/streams/{ID}", headers=nobody)).status_code == 401


@pytest.mark.parametrize(
    ("told", "usage", "cost"),
    [
        ({}, None, None),
        (
            {"prompt_tokens": 3, "completion_tokens": 2, "cost_nano": 1_500},
            {"prompt_tokens": 3, "completion_tokens": 2},
            0.0000015,
        ),
    ],
)
async def test_after_its_time_it_is_told_what_came_of_it(
    store: Store, told: dict[str, str | int], usage: dict[str, int] | None, cost: float | None
) -> None:
    async with over(store, Lives(chunks=1)) as it:
        caller, headers = await it.key("mine")
        name = await it.stream(caller)
        await it.calls.tell(name, {"status": "finished", "model": "up/small", **told})

        async def gone() -> bool:
            return (await it.client.get(f"/v1/streams/{ID}", headers=headers)).status_code == 410

        await eventually(gone)
        reply = await it.client.get(f"/v1/streams/{ID}", headers={**headers, "x-request-id": "mine"})
        body = reply.json()
        assert body["error"].keys() == {"message", "type", "param", "code"}
        assert body["error"]["code"] == "stream_expired" and reply.headers["x-request-id"] == "mine"
        assert body["stream"] == {
            "id": ID,
            "model": "up/small",
            "status": "finished",
            "error_code": None,
            "usage": usage,
            "cost_usd": cost,
        }
