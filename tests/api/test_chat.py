"""Without these a chat request is not read as its caller meant it, or open streams are miscounted."""

from __future__ import annotations

import pytest

from app.api.auth import Door
from app.api.chat import ChatEndpoint
from app.api.line import LineTimes
from app.core.caller import Caller
from app.core.errors import InvalidApiKey, InvalidJson, RequestTooLarge, UpstreamFailed
from app.core.request import Request
from app.wire import chat
from app.wire.codec import Limits
from tests.api.test_auth import ALICE, Ring
from tests.api.wire import Scripted, Wire, asking, whole_answer


class Rig:
    def __init__(self, gateway: Scripted, ring: Ring | None = None, limits: Limits | None = None) -> None:
        self.gateway = gateway
        self.open: list[int] = []
        keys = ring or Ring()
        door = Door(lambda: keys, admin_key=None, open_at_first=True)
        self.endpoint = ChatEndpoint(door, gateway.gateway, chat, limits or Limits(), LineTimes(), self.open.append)

    async def serve(self, wire: Wire) -> Wire:
        await self.endpoint(wire.inbound())
        return wire


async def test_a_request_is_read_and_answered() -> None:
    rig = Rig(Scripted(*whole_answer()))
    wire = await rig.serve(Wire(asking(stream=False), headers={"x-request-id": "mine", "x-tierway-agent": "qe"}))
    assert wire.status == 200 and wire.json["choices"][0]["message"]["content"] == "Hello there"
    ((caller, request),) = rig.gateway.asked
    assert isinstance(request, Request)
    assert caller == Caller() and request.id == "mine" and request.terms.agent == "qe" and request.model == "auto"
    assert rig.open == [], "it is no stream"


async def test_a_stream_is_counted_while_it_is_open() -> None:
    rig = Rig(Scripted(*whole_answer()))
    wire = await rig.serve(Wire(asking()))
    assert wire.body.endswith(b"data: [DONE]\n\n") and rig.open == [1, -1]


async def test_a_stream_that_fails_is_not_counted_for_ever() -> None:
    rig = Rig(Scripted(UpstreamFailed("All failed.")))
    with pytest.raises(UpstreamFailed):
        await rig.serve(Wire(asking()))
    assert rig.open == [1, -1]


async def test_the_key_is_looked_at_before_the_body() -> None:
    """Nobody without a key makes us hold its body."""
    rig = Rig(Scripted(), Ring({"s3": ALICE}, True))
    wire = Wire(asking())
    with pytest.raises(InvalidApiKey):
        await rig.serve(wire)
    assert wire.received == 0
    rig.gateway.steps = whole_answer()
    await rig.serve(Wire(asking(), headers={"authorization": "Bearer s3"}))
    assert rig.gateway.asked[0][0] is ALICE


async def test_the_limit_on_bodies_is_kept() -> None:
    with pytest.raises(RequestTooLarge):
        await Rig(Scripted(), limits=Limits(body_bytes=20)).serve(Wire(asking()))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5000])
async def test_what_is_no_json_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        await Rig(Scripted()).serve(Wire(body))
