"""Without these an error of ours leaves a client without an answer, or too many requests leave nobody with one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.api.front import Front, InFlight, TokenPath
from app.api.inbound import Inbound, Receive, Scope, Send
from app.core.errors import ClientGone, InvalidValue, UpstreamFailed
from app.wire.objects import write_error
from tests.api.wire import Wire, beside, soon

PATH = "/v1/chat/completions"


class Rig:
    """A front over one endpoint that does as told, and over another application."""

    def __init__(self, limit: int = 2, in_flight: InFlight | None = None) -> None:
        self.errors: list[tuple[str, BaseException]] = []
        self.counts: list[int] = []
        self.other: list[Scope] = []
        self.refused: list[tuple[str, str, str]] = []
        self.does: Any = None
        self.shed: list[str] = []
        self.cause: str | None = None
        self.in_flight = in_flight or InFlight(self.counts.append)
        self.front = Front(
            {PATH: TokenPath(self.endpoint, write_error, "chat")},
            self.rest,
            in_flight_limit=limit,
            on_error=lambda where, error: self.errors.append((where, error)),
            in_flight=self.in_flight,
            refused=lambda name, request_id, error, seconds, steps: self.refused.append((name, request_id, error.code)),
            pressure=lambda: self.cause,
            shed=self.shed.append,
        )

    async def endpoint(self, inbound: Inbound) -> None:
        await self.does(inbound)

    async def rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.other.append(scope)

    async def serve(self, wire: Wire) -> Wire:
        await self.front(wire.scope, wire.receive, wire.send)
        return wire


@pytest.fixture
def rig() -> Rig:
    return Rig()


def raising(error: BaseException) -> Any:
    async def endpoint(inbound: Inbound) -> None:
        raise error

    return endpoint


async def answering(inbound: Inbound) -> None:
    await inbound.begin(200, [])
    await inbound.write(b"ok")


async def test_a_token_path_goes_straight_to_its_endpoint(rig: Rig) -> None:
    rig.does = answering
    assert (await rig.serve(Wire())).body == b"ok" and not rig.other
    assert rig.counts == [1, 0] and rig.in_flight.count == 0


@pytest.mark.parametrize("path", ["/", "/v1/models", PATH + "/", PATH.upper()])
async def test_everything_else_goes_on(rig: Rig, path: str) -> None:
    await rig.serve(Wire(path=path))
    assert [scope["path"] for scope in rig.other] == [path] and rig.counts == []


async def test_what_is_not_http_goes_on(rig: Rig) -> None:
    wire = Wire()
    wire.scope["type"] = "websocket"
    await rig.serve(wire)
    assert len(rig.other) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "DELETE"])
async def test_other_methods_are_told_which_one(rig: Rig, method: str) -> None:
    wire = await rig.serve(Wire(method=method))
    assert wire.status == 405 and wire.headers["allow"] == "POST"
    assert wire.error["code"] == "method_not_allowed" and PATH in wire.error["message"]


async def test_more_than_the_limit_is_refused_before_its_body_is_read(rig: Rig) -> None:
    """Else the memory of a full gateway goes on filling with bodies; and room is used again once there is some."""
    go = asyncio.Event()

    async def waiting(inbound: Inbound) -> None:
        await go.wait()
        await answering(inbound)

    rig.does = waiting
    async with beside(rig.serve(Wire())) as first, beside(rig.serve(Wire())) as second:
        await soon(lambda: rig.in_flight.count == 2)
        refused = await rig.serve(Wire(b"body"))
        assert refused.status == 503 and refused.error["code"] == "overloaded"
        assert refused.headers["retry-after"] == "1" and refused.received == 0
        assert rig.shed == ["in_flight"] and rig.refused == [], "counted, and not one by one in the log"
        go.set()
        assert [(await task).status for task in (first, second)] == [200, 200]
    assert (await rig.serve(Wire())).status == 200
    assert max(rig.counts) == 3 and rig.counts[-1] == 0


async def test_fronts_that_follow_each_other_count_as_one(rig: Rig) -> None:
    """Else each reload lets the limit be passed once more, and the gauge tells of the last front that counted."""
    go = asyncio.Event()

    async def waiting(inbound: Inbound) -> None:
        await go.wait()
        await answering(inbound)

    rig.does = waiting
    later = Rig(2, rig.in_flight)
    later.does = answering
    async with beside(rig.serve(Wire())) as first, beside(rig.serve(Wire())) as second:
        await soon(lambda: rig.in_flight.count == 2)
        assert (await later.serve(Wire())).status == 503
        go.set()
        assert [(await task).status for task in (first, second)] == [200, 200]
    assert (await later.serve(Wire())).status == 200
    assert max(rig.counts) == 3 and rig.counts[-1] == 0


async def test_a_server_is_told_what_to_turn_away_and_counts_it(rig: Rig) -> None:
    """What it answers itself must look as if the application had, and what is stopping says so itself."""
    assert rig.front.turned_away(PATH.encode(), []) is None
    rig.in_flight.count = 2
    reply = rig.front.turned_away(PATH.encode() + b"?a=b", [(b"x-request-id", b"mine")])
    assert reply is not None
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n") and b"\r\nx-request-id: mine\r\n" in head
    assert b"content-length: %d" % len(body) in head and b'"overloaded"' in body
    assert rig.shed == ["in_flight"]
    assert rig.front.turned_away(b"/v1/models", []) is None
    rig.front.stopping = lambda: True
    assert rig.front.turned_away(PATH.encode(), []) is None


async def test_under_pressure_all_but_a_few_are_refused(rig: Rig) -> None:
    """So few requests are not what is too much; without them, one leak would be the end of all service."""
    rig.cause = "memory"
    rig.does = answering
    rig.front._limit = 20
    assert (await rig.serve(Wire())).status == 200
    rig.in_flight.count = 1
    refused = await rig.serve(Wire(b"body"))
    assert refused.status == 503 and refused.error["code"] == "overloaded" and refused.received == 0
    assert rig.shed == ["memory"]
    rig.cause = None
    assert (await rig.serve(Wire())).status == 200


async def test_an_error_of_the_tree_is_rendered(rig: Rig) -> None:
    rig.does = raising(InvalidValue("Bad.", param="n"))
    wire = await rig.serve(Wire())
    assert wire.status == 400 and wire.error["param"] == "n" and rig.errors == []


@pytest.mark.parametrize("taken", [False, True])
async def test_what_the_gateway_never_had_is_noted_here(rig: Rig, taken: bool) -> None:
    """Else wrong keys and broken bodies are in no log; and what the gateway had is recorded there, not twice."""

    async def endpoint(inbound: Inbound) -> None:
        inbound.taken = taken
        raise InvalidValue("Bad.")

    rig.does = endpoint
    await rig.serve(Wire(headers={"x-request-id": "mine"}))
    assert rig.refused == ([] if taken else [("chat", "mine", "invalid_value")])


async def test_a_fault_of_ours_is_a_500_with_an_id_and_a_log_line(rig: Rig) -> None:
    """The id is all a client learns, and it must lead to the line that tells all."""
    fault = RuntimeError("the password is x")
    rig.does = raising(fault)
    wire = await rig.serve(Wire(headers={"x-request-id": "mine"}))
    assert wire.status == 500 and wire.error["code"] == "internal_error" and wire.headers["x-request-id"] == "mine"
    assert "mine" in wire.error["message"] and "password" not in wire.body.decode()
    assert rig.errors == [("request mine", fault)]


@pytest.mark.parametrize("error", [RuntimeError("x"), UpstreamFailed("x")])
async def test_after_the_head_no_second_status_is_sent(rig: Rig, error: Exception) -> None:
    async def endpoint(inbound: Inbound) -> None:
        await inbound.begin(200, [])
        raise error

    rig.does = endpoint
    assert len((await rig.serve(Wire())).sent) == 1
    assert [each for _, each in rig.errors] == ([error] if isinstance(error, RuntimeError) else [])


async def test_a_client_that_left_is_no_error(rig: Rig) -> None:
    rig.does = raising(ClientGone("x"))
    assert (await rig.serve(Wire())).sent == [] and rig.errors == []


@pytest.fixture
async def cut(rig: Rig) -> AsyncIterator[Wire]:
    """A request that the server ended."""

    async def waiting(inbound: Inbound) -> None:
        await asyncio.sleep(60)

    rig.does = waiting
    wire = Wire()
    async with beside(rig.serve(wire)) as task:
        await soon(lambda: rig.in_flight.count == 1)
        task.cancel()
        await asyncio.wait((task,))
        yield wire


async def test_what_the_servers_end_cuts_gets_an_answer(rig: Rig, cut: Wire) -> None:
    """The client may go to another replica instead of guessing."""
    assert cut.status == 503 and cut.error["code"] == "shutting_down" and cut.headers["retry-after"] == "1"
    assert rig.errors == [] and rig.in_flight.count == 0


async def test_who_comes_while_the_gateway_stops_is_sent_elsewhere(rig: Rig) -> None:
    """With a status that says so, before the body is read, and on a connection that is closed then."""
    rig.front.stopping = lambda: True
    wire = await rig.serve(Wire(b"{}"))
    assert wire.status == 503 and wire.error["code"] == "shutting_down"
    assert wire.headers["connection"] == "close" and wire.headers["retry-after"] == "1"
