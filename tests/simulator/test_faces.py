"""Without these a request reaches the wrong endpoint, or a refusal comes in the wrong shape."""

from __future__ import annotations

import orjson
import pytest

from app.core.errors import InvalidValue
from app.simulator import wires
from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.faces import House, Refusal, reply_of
from app.simulator.http import Gate
from app.simulator.record import Call
from app.simulator.script import Script, body_of, head_of, whole
from app.simulator.wires import Problem


class Face:
    wire = wires.OPENAI
    generates = frozenset({"/a"})

    def __init__(self) -> None:
        self.routes = {"GET /a": self._a, "GET /b/c/*": lambda call: whole(200, call.path.encode()), "POST /e": self._e}

    def _a(self, _: Call) -> Script:
        raise Refusal(Problem(404, "gone"), (("x-why", "y"),))

    def _e(self, _: Call) -> Script:
        raise InvalidValue("wrong", param="p")

    def unknown(self, _: Call) -> Script:
        return whole(404, b"unknown")


def reply(method: str, path: str) -> Script:
    return reply_of(Face(), Call(method, path, "", {}, b""))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/b/c/d/e", b"/b/c/d/e"),
        ("HEAD", "/b/c/d", b"/b/c/d"),
        ("GET", "/b/c", b"unknown"),
        ("GET", "/", b"unknown"),
        ("POST", "/a", b"unknown"),
    ],
)
def test_routes(method: str, path: str, body: bytes) -> None:
    assert body_of(reply(method, path)) == body


def test_refusals_and_errors_of_codecs_are_worded_by_the_wire() -> None:
    head = head_of(reply("GET", "/a"))
    assert head is not None and (head.status, head.headers) == (404, (("x-why", "y"),))
    assert orjson.loads(body_of(reply("GET", "/a")))["error"]["message"] == "gone"
    wrong = orjson.loads(body_of(reply("POST", "/e")))["error"]
    assert (wrong["param"], wrong["code"]) == ("p", "invalid_value")


async def test_a_house_knows_its_models_and_when_it_is_full() -> None:
    house = House(Behaviour((SimModel("a"),), parallel=1, queue=0), Gate(1))
    assert house.model("a") is not None and house.model("b") is None
    assert not house.full
    await house.gate.enter()
    assert house.full
