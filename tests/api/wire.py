"""Both ends of an ASGI connection for a test: what a client sends and takes, and a gateway that answers by script."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, cast

import orjson

from app.api.inbound import ABORT, Inbound, Message, Scope
from app.core.caller import Caller
from app.core.events import Event, Finish, Start, Text, Usage
from app.core.money import Tokens
from app.core.record import Served
from app.core.request import EmbeddingRequest, Request, Terms
from app.gateway.embeddings import Embedded
from app.gateway.gateway import Gateway
from app.wire import chat
from app.wire.codec import Limits

LEAVE: Message = {"type": "http.disconnect"}


class Wire:
    """A client. It sends `pieces` and then waits; `leave` ends that. While `takes` is not set it takes nothing."""

    def __init__(
        self,
        *pieces: bytes | Message,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        headers: Mapping[str, str] | None = None,
        open_end: bool = False,
    ) -> None:
        self.messages: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": open_end or index < len(pieces) - 1}
            if isinstance(piece, bytes)
            else piece
            for index, piece in enumerate(pieces)
        ]
        self.received = 0
        self.sent: list[Message] = []
        self.late: list[Message] = []  # sent to a client that had left
        self.takes = asyncio.Event()
        self.takes.set()
        self.aborted = False
        self._left = asyncio.Event()
        self.scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
            "extensions": {ABORT: self.abort},
        }

    def abort(self) -> None:
        self.aborted = True
        self.leave()

    def leave(self) -> None:
        """As uvicorn has it: what waits to be taken is let go, and what comes later goes nowhere."""
        self._left.set()
        self.takes.set()

    async def receive(self) -> Message:
        if self.received < len(self.messages):
            self.received += 1
            return self.messages[self.received - 1]
        await self._left.wait()
        return LEAVE

    async def send(self, message: Message) -> None:
        await self.takes.wait()
        (self.late if self._left.is_set() else self.sent).append(message)

    def inbound(self) -> Inbound:
        return Inbound.of(self.scope, self.receive, self.send)

    # --- what came back ---

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode("latin-1") for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1].get("more_body")

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return error


Step = Event | BaseException | float | asyncio.Event
"""What a scripted gateway does next: say something, fail, take so many seconds, wait for a word."""


class Scripted:
    """A gateway that answers by script. `over` tells how often an answer was closed, `asked` what was asked."""

    def __init__(self, *steps: Step, embedded: Embedded | BaseException | None = None) -> None:
        self.steps: Sequence[Step] = steps
        self.embedded = embedded
        self.asked: list[tuple[Caller, Request | EmbeddingRequest]] = []
        self.over = 0
        self.waiting = asyncio.Event()

    @property
    def gateway(self) -> Gateway:
        return cast(Gateway, self)

    async def answer(self, caller: Caller, request: Request) -> AsyncGenerator[Event, None]:
        self.asked.append((caller, request))
        try:
            for step in self.steps:
                match step:
                    case BaseException():
                        raise step
                    case asyncio.Event() | float():
                        self.waiting.set()
                        await (asyncio.sleep(step) if isinstance(step, float) else step.wait())
                    case _:
                        yield step
        finally:
            self.over += 1

    async def embed(self, caller: Caller, request: EmbeddingRequest) -> Embedded:
        self.asked.append((caller, request))
        try:
            if self.embedded is None:
                self.waiting.set()
                await asyncio.Event().wait()
            if isinstance(self.embedded, BaseException):
                raise self.embedded
            assert self.embedded is not None
            return self.embedded
        finally:
            self.over += 1


def served(**more: Any) -> Served:
    return Served(request_id="r", model="up/small", upstream="up", reason="it was asked for", attempts=1, **more)


def begin(**more: Any) -> Start:
    return Start("chatcmpl-1", "small", 1_700_000_000, "ollama", **{"served": served(), **more})


def usage(cost_nano: int | None = 0) -> Usage:
    return Usage(Tokens(prompt=3, completion=2), cost_nano=cost_nano)


def whole_answer() -> tuple[Event, ...]:
    return begin(), Text("Hello"), Text(" there"), Finish("stop"), usage()


def asking(stream: bool = True, **more: Any) -> bytes:
    return orjson.dumps({"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "stream": stream, **more})


def request(stream: bool = True, ignored: tuple[str, ...] = (), **more: Any) -> Request:
    return chat.read_request(asking(stream, **more), Terms("r", "r", ignored=ignored), Limits())


async def soon(happened: Any, seconds: float = 2.0) -> None:
    """Waits until a condition holds, with a deadline."""
    async with asyncio.timeout(seconds):
        while not happened():
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def beside(coroutine: Any) -> AsyncGenerator[asyncio.Task[Any], None]:
    """Runs something beside the test, and sees to it that it ends."""
    task: asyncio.Task[Any] = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))
