"""One simulated server: a face on a port, with its scripted faults and its memory of what it was asked.

Faults are scripted by calls, or over HTTP: `GET /_sim/faults` lists the faults, `POST /_sim/faults` scripts one
(`{"fault": "throttled", "times": 1, "model": null, "path": null, "at": 2, ...}`), `DELETE /_sim/faults` ends them,
`GET /_sim/requests` shows what was asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from random import Random
from typing import Any, Final

import orjson

from app.core.clock import Clock, SystemClock
from app.core.tasks import TaskOwner
from app.simulator.behaviour import DEFAULTS, Behaviour
from app.simulator.brain import directives
from app.simulator.face_claude import ClaudeFace
from app.simulator.face_ollama import OllamaFace
from app.simulator.face_openai import OpenAIFace
from app.simulator.face_vllm import VllmFace
from app.simulator.faces import Face, House, reply_of
from app.simulator.faults import CATALOGUE, Fault, fault
from app.simulator.http import Gate, Listener
from app.simulator.record import Call
from app.simulator.script import Script, json_reply

FACES: Final[Mapping[str, Callable[[House], Face]]] = {
    "ollama": OllamaFace,
    "vllm": VllmFace,
    "anthropic": ClaudeFace,
    "openai": OpenAIFace,
}
KINDS: Final = tuple(FACES)
REMEMBERED: Final = 1_000


@dataclass(slots=True)
class Rule:
    """Scripted faults, of which each request gets one: for so many requests more (None: all), only for that model, only
    on paths like that, and only for a share of them, by `dice`."""

    faults: Sequence[Fault]
    times: int | None = None
    model: str | None = None
    path: str | None = None
    share: float = 1.0
    dice: Random = field(default_factory=lambda: Random(0))

    def fits(self, call: Call, generates: frozenset[str]) -> bool:
        if self.times == 0 or (self.model is not None and call.fields.get("model") != self.model):
            return False
        concerned = call.path in generates if self.path is None else fnmatchcase(call.path, self.path)
        return concerned and (self.share >= 1 or self.dice.random() < self.share)


class Simulated:
    """One simulated server. `errors` are its own mistakes, which no script asked for."""

    def __init__(self, kind: str, behaviour: Behaviour | None = None, clock: Clock | None = None) -> None:
        self.kind = kind
        self.behaviour = behaviour or DEFAULTS[kind]
        self.requests: deque[Call] = deque(maxlen=REMEMBERED)
        self.errors: list[Exception] = []
        gate = Gate(self.behaviour.parallel)
        self.house = House(self.behaviour, gate, clock or SystemClock())
        self.face: Face = FACES[kind](self.house)
        self._rules: list[Rule] = []
        self._tasks = TaskOwner(self._failed)
        self._listener = Listener(self.answer, self._tasks, gate)
        self._control: Mapping[str, Callable[[Call], Script]] = {
            "GET /_sim/faults": lambda _: json_reply({name: one.explains for name, one in CATALOGUE.items()}),
            "POST /_sim/faults": self._script_fault,
            "DELETE /_sim/faults": self._end_faults,
            "GET /_sim/requests": lambda _: json_reply([call.as_json() for call in self.requests]),
        }

    # --- for tests ---

    @property
    def base_url(self) -> str:
        return f"http://{self._listener.host}:{self._listener.port}"

    @property
    def open_connections(self) -> int:
        return len(self._listener.connections)

    @property
    def running(self) -> int:
        """Replies under way in the server's places."""
        return self.house.gate.running

    @property
    def asked(self) -> list[Call]:
        """The requests for answers alone, without those of discovery and health."""
        return [call for call in self.requests if call.path in self.face.generates]

    def fault_next(
        self, name: Fault | str, times: int = 1, *, model: str | None = None, path: str | None = None, **how: Any
    ) -> None:
        """The next so many requests get this fault: those for answers, or those on a path like `path`."""
        self._rules.append(Rule([_made(name, how)], times, model, path))

    def fault_always(self, name: Fault | str, *, model: str | None = None, path: str | None = None, **how: Any) -> None:
        """Every request gets this fault, until `no_faults`."""
        self._rules.append(Rule([_made(name, how)], None, model, path))

    def fault_some(self, share: float, *names: Fault | str, seed: int = 0) -> None:
        """This share of the requests for answers gets one of these faults, drawn by a seed, until `no_faults`."""
        self._rules.append(Rule([fault(name) for name in names], share=share, dice=Random(seed)))

    def no_faults(self) -> None:
        self._rules.clear()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        await self._listener.listen(host, port)

    def refuse(self) -> None:
        """The port refuses new connections from now on."""
        self._listener.refuse()

    async def accept(self) -> None:
        """The port takes connections again."""
        await self._listener.accept()

    def drop_connections(self) -> None:
        """Resets every open connection, as a crash does."""
        for connection in tuple(self._listener.connections):
            connection.drop(reset=True)

    async def close(self) -> None:
        await self._listener.close()

    def _failed(self, _task: str, error: BaseException) -> None:
        assert isinstance(error, Exception), "only exceptions end tasks here"
        self.errors.append(error)

    # --- answering ---

    def answer(self, call: Call) -> Script:
        """What becomes of a request: its reply, bent by the fault that is scripted for it."""
        if call.path.startswith("/_sim/"):
            handler = self._control.get(f"{call.method} {call.path}")
            return handler(call) if handler else json_reply({"error": "no such control"}, 404)
        self.requests.append(call)
        chosen = self._fault_for(call)
        if chosen is None:
            return reply_of(self.face, call)
        call.fault = chosen.name
        if chosen.kind.refuses:
            self.refuse()
            self._tasks.spawn(self._accept_after(chosen.seconds), "accept again")
        if chosen.kind.asks and call.fields:
            call = _asking(call, chosen.kind.asks)
        return chosen.bend(reply_of(self.face, call), self.face.wire)

    def _fault_for(self, call: Call) -> Fault | None:
        generates = self.face.generates
        for rule in self._rules:
            if rule.fits(call, generates):
                if rule.times is not None:
                    rule.times -= 1
                return rule.dice.choice(rule.faults)
        return _asked_for(call) if call.path in generates and b"sim:fault=" in call.raw else None

    async def _accept_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.accept()

    # --- control over HTTP ---

    def _script_fault(self, call: Call) -> Script:
        fields = dict(call.fields)
        times, model, path = fields.pop("times", 1), fields.pop("model", None), fields.pop("path", None)
        try:
            chosen = fault({"name": fields.pop("fault", None), **fields})
        except ValueError as error:
            return json_reply({"error": str(error)}, 400)
        if not (times is None or type(times) is int) or not all(isinstance(one, str | None) for one in (model, path)):
            return json_reply({"error": "times is a number or null, model and path are texts"}, 400)
        self._rules.append(Rule([chosen], times, model, path))
        return json_reply({"fault": chosen.name, "times": times, "model": model, "path": path})

    def _end_faults(self, _: Call) -> Script:
        self.no_faults()
        return json_reply({"faults": []})


def _made(name: Fault | str, how: Mapping[str, Any]) -> Fault:
    return replace(fault(name), **how)


def _asking(call: Call, asks: Mapping[str, Any]) -> Call:
    """The same request, asking for something else; what was really asked stays in `requests`."""
    body = orjson.dumps({**call.fields, **asks})
    return Call(call.method, call.path, call.query, call.headers, body, call.keep_alive)


def _asked_for(call: Call) -> Fault | None:
    """The fault that the last message asks for by `sim:fault=NAME`."""
    messages = call.fields.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    name = directives(str(last)).get("fault", "")
    try:
        return fault(name.strip("'\"}],.")) if name else None
    except ValueError:
        return None
