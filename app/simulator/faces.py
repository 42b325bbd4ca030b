"""What a face is: one kind of server, from a request to the script of its reply. And what all faces share.

Routes are a table of `METHOD /path`; a handler raises `Refusal` (or an error of a codec) for what the server refuses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from app.core.clock import Clock, SystemClock
from app.core.errors import GatewayError
from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.http import Gate
from app.simulator.record import Call
from app.simulator.script import Headers, Script, whole
from app.simulator.wires import Problem, Wire

Handler = Callable[[Call], Script]
STARTED: Final = 1_780_000_000  # when the simulated models were made


class Refusal(Exception):
    """The server refuses."""

    def __init__(self, problem: Problem, headers: Headers = ()) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.headers = headers


@dataclass
class House:
    """What a face stands on: how it shall behave, its queue, its clock, and what it has counted."""

    behaviour: Behaviour
    gate: Gate
    clock: Clock = field(default_factory=SystemClock)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def full(self) -> bool:
        return self.gate.full(self.behaviour.queue)

    def model(self, name: str) -> SimModel | None:
        return self.behaviour.model(name)


class Face(Protocol):
    """`generates` are the paths of which answers are made; scripted faults mean these unless told otherwise."""

    @property
    def wire(self) -> Wire: ...

    @property
    def routes(self) -> Mapping[str, Handler]: ...

    @property
    def generates(self) -> frozenset[str]: ...

    def unknown(self, call: Call) -> Script:
        """The reply where there is no route."""
        ...


def reply_of(face: Face, call: Call) -> Script:
    """The script for a request: its route's, or a refusal in the server's own words."""
    method = "GET" if call.method == "HEAD" else call.method
    handler = face.routes.get(f"{method} {call.path}") or _by_prefix(face, method, call.path)
    if handler is None:
        return face.unknown(call)
    try:
        return handler(call)
    except Refusal as refusal:
        problem = refusal.problem
        return whole(problem.status, face.wire.error_body(problem), headers=refusal.headers)
    except GatewayError as error:
        problem = Problem(error.status, error.message, param=error.param, code=error.code)
        return whole(problem.status, face.wire.error_body(problem))


def _by_prefix(face: Face, method: str, path: str) -> Handler | None:
    """Routes that end in `/*` take whatever follows."""
    place = path.find("/", 1)
    while place > 0:
        if handler := face.routes.get(f"{method} {path[:place]}/*"):
            return handler
        place = path.find("/", place + 1)
    return None
