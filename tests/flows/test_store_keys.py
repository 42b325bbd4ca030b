"""After a day of everything, each key in the store is one that the layout declares, and ends when it says. Without that
a store fills up with what nobody knows of, or loses what was promised for ever."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from app.store import layout
from app.store.address import Address
from app.store.client import Store
from app.store.folder import prepare
from tests.flows.asking import ADMIN_KEY, ANY, Asking, replicas, within
from tests.flows.service import MODELS

pytestmark = pytest.mark.asyncio(loop_scope="function")

LOCAL, OTHER, PAID = (MODELS[kind] for kind in ("ollama", "vllm", "anthropic"))
HELLO: Final[list[dict[str, str]]] = [{"role": "user", "content": "What is the capital of Portugal?"}]
SCORED: Final = 12
"""Answers of one model that are rated: enough to compare others with."""
PASSING: Final = frozenset({"rollouts-turn", "rollouts-seen"})
"""Partitions that live for seconds: they need not be there when somebody looks."""


async def everything(asking: Asking, client: httpx2.AsyncClient) -> None:
    """What callers and operators do in a day, once."""
    spec: dict[str, Any] = {"name": "me", "tenant": "acme", "budgets": {"day": 5, "month": 50, "total": 500}}
    spec |= {"requests_per_minute": 100, "tokens_per_minute": 1_000_000, "concurrency": 10}
    made = await asking.admin("POST", "keys", spec, status=201)
    gone = await asking.admin("POST", "keys", {"name": "gone"}, status=201)
    await asking.admin("DELETE", f"keys/{gone['id']}")
    await asking.admin("PUT", "budgets/global:*:day", {"limit": 60.0})
    await asking.admin("PUT", "flags/SHADOW", {"value": "100%"})
    await asking.admin("PUT", "settings/target_local", {"value": 0.5})
    await asking.admin("PUT", "rollouts/trial", {"kind": "canary", "share": "50%", "to": {"model": OTHER}})
    await asking.admin("POST", "upstreams/vllm/drain")
    await asking.admin("POST", "upstreams/vllm/resume")
    await asking.admin("POST", "upstreams/vllm/reset")
    client.headers["authorization"] = f"Bearer {made['key']}"
    for model in ("auto", LOCAL, PAID):
        for stream in (False, True):
            for headers in (
                {},
                {"x-tierway-session": "talk"},
                {"x-tierway-resumable": "true"} if stream else {},
                {"idempotency-key": f"{model} {stream}"},
                {"x-tierway-agent": "qe-1", "x-tierway-max-cost": "1", "x-tierway-session-max-cost": "2"},
            ):
                await asked(client, headers, model=model, stream=stream)
    for _ in range(SCORED):
        first = await asked(client, {}, model=LOCAL)
        said: Any = {"request_id": first.headers["x-request-id"], "rating": 0.5}
        assert (await client.post("/v1/feedback", json=said)).status_code == 202
    await asked(client, {}, model="auto", said="No, that is wrong. What is the capital of Portugal?")
    embedded = await client.post("/v1/embeddings", json={"model": "tierway/static", "input": "Hello"})
    assert embedded.status_code == 200

    async def compared() -> bool:
        """As soon as what was said of the answers is summed up."""
        own = {"authorization": f"Bearer {ADMIN_KEY}"}
        return (await client.put("/admin/baseline", json={"model": LOCAL}, headers=own)).status_code == 200

    await within(20, compared, "there is a baseline")


async def asked(client: httpx2.AsyncClient, headers: dict[str, str], *, said: str = "", **body: Any) -> httpx2.Response:
    messages = [{"role": "user", "content": said}] if said else HELLO
    reply = await client.post("/v1/chat/completions", json={**body, "messages": messages}, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply


class Walk:
    """Looks at every key, again and again; `seen` are the partitions that keys were of."""

    def __init__(self, store: Store) -> None:
        self.seen: set[str] = set()
        self._store = store

    @property
    def missing(self) -> list[str]:
        return sorted(layout.PARTITIONS.keys() - PASSING - self.seen)

    async def is_whole(self) -> bool:
        cursor, faults = b"0", list[str]()
        while True:
            cursor, keys = await self._store.call("SCAN", cursor, "COUNT", 1_000)
            for key in map(bytes.decode, keys):
                ttl = await self._store.call("TTL", key)
                if ttl != -2:  # else it ended meanwhile
                    faults += filter(None, [layout.fault_of(key, ttl)])
                    self.seen |= {name for name, each in layout.PARTITIONS.items() if each.holds(key)}
            if cursor == b"0":
                assert not faults, "\n".join(faults)
                return not self.missing


async def test_every_key_is_declared_and_ends_when_it_says(tmp_path: Path) -> None:
    budgets = [
        {"scope": "global", "period": "day", "limit": 50.0},
        {"scope": "tenant", "period": "month", "limit": 50.0},
        {"scope": "agent", "match": "qe-*", "period": "total", "limit": 50.0},
        {"scope": "session", "period": "total", "limit": 50.0},
    ]
    models = {LOCAL: ANY, OTHER: ANY, PAID: {**ANY, "price": {"input": 4.0, "output": 20.0}}}
    budget = {"alert_at": [0.0000001]}
    async with contextlib.AsyncExitStack() as stack:
        found = await stack.enter_async_context(replicas(tmp_path, 2, models=models, budgets=budgets, budget=budget))
        (service, asking), _ = found
        client = await stack.enter_async_context(httpx2.AsyncClient(base_url=service.url, timeout=60))
        await everything(asking, client)
        store = Store(Address(path=prepare(tmp_path / "data").socket), timeout=10)
        stack.push_async_callback(store.aclose)
        await store.open()
        service.sims["anthropic"].fault_next("slow_drip", size=20, seconds=0.05)
        body = {"model": PAID, "stream": True, "messages": [{"role": "user", "content": "sim:tokens=500"}]}
        walk = Walk(store)
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:  # what is held meanwhile
            assert reply.status_code == 200
            with contextlib.suppress(AssertionError):
                await within(30, walk.is_whole, "every partition was seen")
        assert not walk.missing, "this test leaves out something that the product does"
        assert await walk.is_whole()
