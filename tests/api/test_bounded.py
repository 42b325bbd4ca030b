"""Without these a rating, or an operator's request, may bring any number of bytes, or bring them for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body, Request

from app.api import inbound as module
from app.api.admin import behind
from app.api.app import fastapi_app
from app.api.bounded import BODY_BYTES, Bounded
from app.api.front import InFlight
from tests.api.site import ADMIN, door
from tests.api.wire import Wire, beside, soon

JSON = {"content-type": "application/json"}


class Site:
    """Paths of FastAPI's, of which some want a body. `got` are the bodies that arrived."""

    def __init__(self, limit: int = 5) -> None:
        self.got: list[Any] = []
        self.shed: list[str] = []
        self.most = 0
        self.in_flight = InFlight(self._seen)
        self.gate = asyncio.Event()
        self.gate.set()
        routers = [APIRouter(), APIRouter(prefix="/admin", route_class=behind(door()))]
        for router in routers:
            router.add_api_route("/take", self.take, methods=["POST", "PUT"])
            router.add_api_route("/look", self.look, methods=["GET", "POST", "DELETE"])
        self.app = Bounded(fastapi_app(routers), self.in_flight, limit, self.shed.append)

    def _seen(self, count: int) -> None:
        self.most = max(self.most, count)

    async def take(self, said: Annotated[Any, Body()], request: Request) -> str:
        await self.gate.wait()
        self.got.append(said)
        assert (await request.receive())["type"] == "http.disconnect", "what comes after the body comes through"
        return "taken"

    async def look(self) -> str:
        return "seen"

    async def serve(self, wire: Wire) -> Wire:
        await self.app(wire.scope, wire.receive, wire.send)
        return wire


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.1)


def at(path: str, *pieces: bytes, headers: Mapping[str, str] = ADMIN, open_end: bool = False) -> Wire:
    return Wire(*pieces, path=path, headers={**JSON, **headers}, open_end=open_end)


@pytest.mark.parametrize("path", ["/take", "/admin/take"])
async def test_a_body_arrives_as_it_was_sent(site: Site, path: str) -> None:
    wire = at(path, b'{"a"', b":", b"1}")
    wire.leave()
    await site.serve(wire)
    assert (site.got, site.most, site.in_flight.count) == ([{"a": 1}], 1, 0)


@pytest.mark.parametrize("path", ["/take", "/admin/take"])
@pytest.mark.parametrize("declared", [True, False])
async def test_one_that_is_too_large_is_refused(site: Site, path: str, declared: bool) -> None:
    """However much it is, no more than the limit is ever kept."""
    size = {"content-length": str(BODY_BYTES + 1)} if declared else {}
    wire = await site.serve(at(path, b" " * BODY_BYTES, b" ", headers={**ADMIN, **size}))
    assert (wire.status, wire.error["code"]) == (413, "request_too_large") and not site.got
    assert wire.headers["connection"] == "close" and wire.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/take", "/admin/take"])
async def test_one_that_stalls_is_given_up(site: Site, path: str, quick: None) -> None:
    async with asyncio.timeout(20):
        wire = await site.serve(at(path, b'{"a":', open_end=True))
    assert (wire.status, wire.error["code"]) == (408, "request_timeout") and not site.got
    assert wire.headers["connection"] == "close" and site.in_flight.count == 0


async def test_a_packed_one_is_refused_in_words(site: Site) -> None:
    wire = await site.serve(at("/take", b"{}", headers={"content-encoding": "gzip"}))
    assert (wire.status, wire.error["code"]) == (400, "invalid_value") and "gzip" in wire.error["message"]


async def test_who_leaves_while_sending_is_no_fault_of_ours(site: Site) -> None:
    wire = at("/take", b"{", open_end=True)
    wire.leave()
    await site.serve(wire)
    assert not site.got and site.in_flight.count == 0


async def test_without_a_key_no_body_is_read(site: Site) -> None:
    wire = await site.serve(at("/admin/take", b" " * (BODY_BYTES + 1), headers={}))
    assert (wire.status, wire.received) == (401, 0)


@pytest.mark.parametrize(("path", "status"), [("/look", 200), ("/nothing", 404)])
async def test_what_wants_no_body_reads_none(site: Site, path: str, status: int) -> None:
    wire = await site.serve(at(path, b" ", open_end=True))
    assert (wire.status, wire.received) == (status, 0)


async def test_what_brings_none_is_not_counted(site: Site) -> None:
    """Probes, and what an operator looks at, must be answered however much there is to do."""
    site.in_flight.count = 100
    wire = Wire(path="/look", method="GET")
    assert (await site.serve(wire)).status == 200 and site.most == 0


async def test_too_many_are_refused_but_the_operators(site: Site) -> None:
    """What an operator sends may be what ends it."""
    site.in_flight.count = 5
    wire = await site.serve(at("/take", b"1"))
    assert (wire.status, wire.error["code"], wire.received) == (503, "overloaded", 0) and wire.headers["retry-after"]
    assert site.shed == ["in_flight"] and site.in_flight.count == 5
    assert (await site.serve(at("/admin/look", b"1"))).status == 200 and site.shed == ["in_flight"]


async def test_one_that_is_being_served_counts(site: Site) -> None:
    site.gate.clear()
    wire = at("/take", b"1")
    async with beside(site.serve(wire)):
        await soon(lambda: site.in_flight.count == 1, 20)
        wire.leave()
        site.gate.set()
        await soon(lambda: site.in_flight.count == 0, 20)
    assert site.got == [1]


async def test_what_is_not_http_goes_on(site: Site) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    wire = Wire()
    wire.scope["type"] = "websocket"
    await Bounded(app, site.in_flight, 5)(wire.scope, wire.receive, wire.send)
    assert seen == [wire.scope]
