"""A client that reads streams event by event, and comes back to them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx2
import orjson

from app.simulator.behaviour import DEFAULTS
from app.simulator.server import simulate
from tests.flows.service import MODELS, Service, gateway, upstream

MODEL: Final = MODELS["openai"]
RESUMABLE: Final = {"x-tierway-resumable": "true"}
PRICED: Final = {MODEL: {"price": {"input": 1.0, "output": 2.0}}}


@contextlib.asynccontextmanager
async def gateways(
    folder: Path, count: int = 2, pace: float | None = 200, **config: Any
) -> AsyncIterator[list[Service]]:
    """So many gateways over one store and one upstream of this many tokens a second."""
    plain = DEFAULTS["openai"]
    models = tuple(replace(model, tokens_per_second=pace, max_output=100_000) for model in plain.models)
    async with contextlib.AsyncExitStack() as stack:
        sim = await stack.enter_async_context(simulate("openai", replace(plain, models=models)))
        upstreams, sims = {"openai": upstream(sim)}, {"openai": sim}
        options: dict[str, Any] = {"models": PRICED, **config}
        yield [await stack.enter_async_context(gateway(folder, upstreams, sims, **options)) for _ in range(count)]


@dataclass(slots=True)
class Got:
    """What a client has of a stream: whole events with an id, in the bytes they came in, and the error without one."""

    id: str = ""
    last: int = 0
    events: list[bytes] = field(default_factory=list)
    error: dict[str, Any] | None = None
    _rest: bytes = b""

    def feed(self, data: bytes) -> None:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            event = b"\n".join(line for line in block.split(b"\n") if not line.startswith(b":"))
            name, _, number = event.partition(b"\n")[0].partition(b": ")
            if name != b"id":
                self.error = orjson.loads(event.removeprefix(b"data: "))["error"]
                continue
            assert int(number) == self.last + 1, f"after event {self.last} comes {event!r}"
            self.last += 1
            self.events.append(event)

    def cut(self) -> None:
        """The connection broke: what was not whole is forgotten."""
        self._rest = b""

    @property
    def data(self) -> list[bytes]:
        return [event.partition(b"\ndata: ")[2] for event in self.events]

    @property
    def done(self) -> bool:
        return bool(self.events) and self.data[-1] == b"[DONE]"

    @property
    def text(self) -> str:
        chunks = [orjson.loads(each) for each in self.data if each != b"[DONE]"]
        choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    @property
    def ended_by(self) -> str | None:
        """The code of the error that is the stream's own last event."""
        error = {} if self.done or not self.events else orjson.loads(self.data[-1]).get("error", {})
        code: str | None = error.get("code")
        return code


def body(tokens: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"sim:tokens={tokens}"}]
    return {"model": MODEL, "messages": messages, "stream": True, **more}


@contextlib.asynccontextmanager
async def http(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=service.url, timeout=30) as client:
        yield client


async def begin(service: Service, tokens: int, got: Got, *, bytes_: int | None = None, **headers: str) -> Got:
    """Asks for a resumable stream, and reads (so many bytes of) it."""
    async with http(service) as client:
        asked = client.stream("POST", "/v1/chat/completions", json=body(tokens), headers={**RESUMABLE, **headers})
        async with asked as reply:
            assert reply.status_code == 200, await reply.aread()
            got.id = reply.headers["x-tierway-stream-id"]
            await _read(reply, got, bytes_)
    return got


async def resume(service: Service, got: Got, *, bytes_: int | None = None, **headers: str) -> Got:
    """Goes on after the last whole event."""
    async with http(service) as client:
        path = f"/v1/streams/{got.id}"
        async with client.stream("GET", path, headers={"last-event-id": str(got.last), **headers}) as reply:
            assert reply.status_code == 200, await reply.aread()
            assert reply.headers["content-type"].startswith("text/event-stream")
            assert reply.headers["x-tierway-stream-id"] == got.id
            await _read(reply, got, bytes_)
    return got


async def _read(reply: httpx2.Response, got: Got, most: int | None) -> None:
    left = most
    with contextlib.suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
        async for data in reply.aiter_raw():
            got.feed(data if left is None else data[:left])
            if left is not None and (left := left - len(data)) <= 0:
                break
    got.cut()
