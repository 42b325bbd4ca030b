"""A client of a routed gateway that looks at who answered and why, and the operator beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx2
import orjson

from app.core.clock import SystemClock
from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from tests.flows.service import MODELS, Service, gateway, upstream

ADMIN_KEY: Final = "the-admin-key-of-this-test"
ADMIN: Final = {"TIERWAY_ADMIN_KEY": ADMIN_KEY}
ANY: Final = {"complexity": [0.0, 1.0]}
"""A note by which a model is for every request, so that no verdict has a say in what a test is about."""
clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Reply:
    """`code` is that of the error, None for an answer; `broke` one that came after the answer had begun."""

    status: int
    headers: httpx2.Headers
    text: str
    code: str | None
    broke: bool = False

    @property
    def model(self) -> str | None:
        return self.headers.get("x-tierway-model")

    @property
    def id(self) -> str:
        return str(self.headers["x-request-id"])


class Asking:
    """One client. It never tries again."""

    def __init__(self, service: Service) -> None:
        self._http = httpx2.AsyncClient(base_url=service.url, timeout=20)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def chat(
        self, said: str | list[dict[str, Any]] = "Hello", model: str = "auto", *, stream: bool = False, **more: Any
    ) -> Reply:
        """`more` are fields of the body, or headers of ours by their last words (`max_cost`, `session`), or a `key`."""
        names = ("max_cost", "session_max_cost", "session", "strategy", "agent")
        headers = {f"x-tierway-{name.replace('_', '-')}": str(more.pop(name)) for name in names if name in more}
        if "key" in more:
            headers["authorization"] = f"Bearer {more.pop('key')}"
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        body = {"model": model, "messages": messages, "stream": stream, **more}
        reply = await self._http.post("/v1/chat/completions", json=body, headers=headers)
        if reply.status_code != 200:
            return Reply(reply.status_code, reply.headers, reply.text, reply.json()["error"]["code"])
        if not stream:
            text = reply.json()["choices"][0]["message"]["content"] or ""
            return Reply(200, reply.headers, text, None)
        return _streamed(reply)

    async def feedback(self, request_id: str, rating: float) -> int:
        said = {"request_id": request_id, "rating": rating}
        return (await self._http.post("/v1/feedback", json=said)).status_code

    async def admin(self, method: str, path: str, body: Any = None, status: int = 200) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        reply = await self._http.request(method, f"/admin/{path}", json=body, headers=headers)
        assert reply.status_code == status, reply.text
        found: dict[str, Any] = reply.json()
        return found

    async def decision(self, request_id: str) -> dict[str, Any]:
        """What is remembered of a request; it is written down a moment after its answer."""
        headers, found = {"authorization": f"Bearer {ADMIN_KEY}"}, list[dict[str, Any]]()

        async def is_there() -> bool:
            reply = await self._http.get(f"/admin/decisions/{request_id}", headers=headers)
            assert reply.status_code in (200, 404), reply.text
            found.append(reply.json())
            return reply.status_code == 200

        await within(2, is_there, "the decision is written down")
        return found[-1]

    async def upstream(self, name: str) -> dict[str, Any]:
        """What this gateway sees of one of its upstreams."""
        states: list[dict[str, Any]] = (await self.admin("GET", "upstreams"))["data"]
        return next(state for state in states if state["name"] == name)


def _streamed(reply: httpx2.Response) -> Reply:
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line.startswith("data: ")]
    events = [orjson.loads(line) for line in lines if line != "[DONE]"]
    choices = [choice for event in events for choice in event.get("choices", ())]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    errors = [event["error"]["code"] for event in events if "error" in event]
    broke = bool(errors) or lines[-1] != "[DONE]"
    return Reply(200, reply.headers, text, errors[0] if errors else None, broke)


async def within(seconds: float, true: Callable[[], Awaitable[bool]], what: str) -> float:
    """Waits until it is true; the seconds that took."""
    begun = clock.monotonic()
    while not await true():
        assert clock.monotonic() < begun + seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)
    return clock.monotonic() - begun


Replica = tuple[Service, Asking]


@contextlib.asynccontextmanager
async def replicas(
    folder: Path,
    count: int = 1,
    kinds: Sequence[str] = ("ollama", "vllm", "anthropic"),
    sims: Mapping[str, Simulated] | None = None,
    settings: Mapping[str, Any] | None = None,
    **config: Any,
) -> AsyncIterator[list[Replica]]:
    """So many gateways with one store over one simulated server of each kind, in this order of preference. `settings`
    are those of each upstream."""
    async with contextlib.AsyncExitStack() as stack:
        if sims is None:
            sims = {kind: await stack.enter_async_context(simulate(kind)) for kind in kinds}
        upstreams = {kind: upstream(sim, **{"max_concurrency": 64, **(settings or {})}) for kind, sim in sims.items()}
        options: dict[str, Any] = {"models": {MODELS[kind]: ANY for kind in kinds}, **config}
        options["environ"] = {"ANTHROPIC_API_KEY": "k", **ADMIN, **options.get("environ", {})}
        found = []
        for _ in range(count):
            service = await stack.enter_async_context(gateway(folder, upstreams, sims, **options))
            found.append((service, await stack.enter_async_context(Asking(service))))
        yield found


class Load:
    """So many clients that ask `auto` again and again, as long as the context lasts. What they got is in `replies`."""

    def __init__(self, asking: Asking, clients: int, pause: float = 0.0) -> None:
        self.replies: list[Reply] = []
        self._asking = asking
        self._clients = clients
        self._pause = pause
        self._over = False

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _client(self, number: int) -> None:
        turn = number
        while not self._over:
            self.replies.append(await self._asking.chat(f"Hello from client {number}", stream=turn % 2 == 0))
            turn += 1
            await asyncio.sleep(self._pause)

    async def more(self, count: int) -> list[Reply]:
        """The next so many replies."""
        begun = len(self.replies)
        while len(self.replies) < begun + count:
            await asyncio.sleep(0.005)
        return self.replies[begun:]
