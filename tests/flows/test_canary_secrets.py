"""Keys and prompts stay where they belong: whatever field they are put into, nobody finds them in the logs, in the
metrics, in traces, in what others are told, or in what the store keeps in the clear."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from app.simulator.server import simulate
from app.store import layout
from app.store.address import Address
from app.store.client import Store
from app.store.folder import prepare
from tests.flows.asking import ADMIN_KEY, ANY, Asking, replicas, within
from tests.flows.collecting import Collector, collecting
from tests.flows.service import MODELS, Service

CLAUDE, OTHER, LOCAL = MODELS["anthropic"], MODELS["openai"], MODELS["ollama"]
UPSTREAM_KEY: Final = "sk-ant-canary-of-the-upstream-4711"
PROMPT: Final = "canarias"
"""A word that no prompt of a test and no line of the product holds otherwise."""
TOLD: Final = "told-canarias"
"""The same, in a conversation that the caller asked to be kept."""
HISTORY: Final = (layout.PARTITIONS["session"], layout.PARTITIONS["session-said"])


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


async def traced(collector: Collector, count: int) -> None:
    async def is_so() -> bool:
        return sum(span.name == "tierway.request" for span in collector.spans) >= count

    await within(30, is_so, "every request has its trace")


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Service, Asking, str]]:
    """With a key that every request needs, under a budget, so that everything is written that is ever written."""
    async with contextlib.AsyncExitStack() as stack:
        sims = {kind: await stack.enter_async_context(simulate(kind)) for kind in ("ollama", "openai", "anthropic")}
        priced = {**ANY, "price": {"input": 1, "output": 2}}
        replica = await stack.enter_async_context(
            replicas(
                folder,
                1,
                tuple(sims),
                sims,
                environ={"ANTHROPIC_API_KEY": UPSTREAM_KEY},
                models={LOCAL: ANY, CLAUDE: priced, OTHER: priced},
                budgets=[
                    {"scope": "global", "period": "day", "limit": 5},
                    {"scope": "agent", "period": "day", "limit": 5},
                ],
            )
        )
        (service, asking) = replica[0]
        spec = {"name": "canary", "tenant": "team", "requests_per_minute": 1_000, "concurrency": 50}
        made = await asking.admin("POST", "keys", {**spec, "budgets": {"day": 4}}, status=201)
        yield service, asking, made["key"]


def everywhere(word: str) -> dict[str, Any]:
    """A body that has the word in every field that takes text of the caller's."""
    tool = {"name": f"find_{word}", "description": word, "parameters": {"type": "object", "title": word}}
    return {
        "messages": [
            {"role": "system", "content": f"You are {word}.", "name": word},
            {"role": "user", "content": [{"type": "text", "text": f"Say {word}."}], "name": word},
            {
                "role": "assistant",
                "content": word,
                "tool_calls": [
                    {
                        "id": word,
                        "type": "function",
                        "function": {"name": f"find_{word}", "arguments": f'{{"a":"{word}"}}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": word, "content": word},
            {"role": "user", "content": word},
        ],
        "tools": [{"type": "function", "function": tool}],
        "stop": [f"{word} stop"],
        "user": word,
        "metadata": {"about": word},
        "prompt_cache_key": word,
        "safety_identifier": word,
        "max_tokens": 40,
    }


def broken(word: str) -> Iterator[tuple[Any, int]]:
    """Bodies that are refused, with the word where the fault is, and the status of the refusal."""
    good = {"model": "auto", "messages": [{"role": "user", "content": word}]}
    yield f'{{"model": "auto", "messages": [{{"role": "user", "content": "{word}"'.encode(), 400
    yield {**good, "messages": [{"role": word, "content": word}]}, 400
    yield {**good, "messages": [{"role": "user", "content": {"text": word}}]}, 400
    yield {**good, "messages": [{"role": "user", "content": [{"type": word, word: word}]}]}, 400
    yield {**good, "tools": [{"type": "function", "function": {"name": f"{word} {word}"}}]}, 400
    yield {**good, "tool_choice": {"type": "function", "function": {"name": f"{word}_tool"}}}, 400
    yield {**good, "max_tokens": word}, 400
    yield {**good, "temperature": {word: word}}, 400
    yield {**good, "n": [word]}, 400
    yield {**good, "model": {word: word}}, 400


async def send(service: Service, key: str, body: Any, **headers: str) -> httpx2.Response:
    named = {"authorization": f"Bearer {key}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with httpx2.AsyncClient(base_url=service.url, timeout=20) as http:
        if isinstance(body, bytes):
            return await http.post("/v1/chat/completions", content=body, headers=named)
        return await http.post("/v1/chat/completions", json=body, headers=named)


async def kept(folder: Path) -> dict[str, bytes]:
    """Every key of the store with all that it holds."""
    store = Store(Address(path=prepare(folder / "data").socket), timeout=10.0)
    await store.open()
    found: dict[str, bytes] = {}
    reads = {
        b"string": ("GET",),
        b"hash": ("HGETALL",),
        b"list": ("LRANGE", 0, -1),
        b"set": ("SMEMBERS",),
        b"zset": ("ZRANGE", 0, -1),
        b"stream": ("XRANGE", "-", "+"),
    }
    for name in await store.call("KEYS", "*"):
        command, *rest = reads[bytes(await store.call("TYPE", name))]
        found[name.decode()] = repr(await store.call(str(command), name, *rest)).encode()
    await store.aclose()
    return found


def files(folder: Path) -> dict[Path, bytes]:
    """All that the gateway and its store wrote to the disk."""
    return {path: path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file()}


async def settled(service: Service, count: int) -> None:
    async def is_so() -> bool:
        return len(service.lines()) >= count

    await within(30, is_so, "every request has its line")
    await asyncio.sleep(0.5)  # what is written after the line


async def told(service: Service) -> dict[str, str]:
    """What an operator or another caller can read."""
    async with httpx2.AsyncClient(base_url=service.url, timeout=20) as http:
        metrics = (await http.get("/metrics")).text
        admin = {"authorization": f"Bearer {ADMIN_KEY}"}
        pages = ("keys", "costs?group_by=key", "costs?group_by=agent", "budgets", "reservations", "audit", "report")
        seen = {page: (await http.get(f"/admin/{page}", headers=admin)).text for page in pages}
    return {"log": service.log.getvalue().decode(), "metrics": metrics, **seen}


@pytest.mark.parametrize("stream", [False, True])
async def test_prompts_are_nowhere_but_in_kept_conversations(
    tmp_path: Path, stream: bool, collector: Collector
) -> None:
    """Whoever may read the logs, the metrics or a backup of the store must not learn what people talk about."""
    async with running(tmp_path) as (service, _, key):
        count = 0
        for model in (LOCAL, OTHER, CLAUDE, "auto"):
            for headers in ({}, {"idempotency_key": f"once-{model}"}, {"traceparent": PROMPT, "tracestate": PROMPT}):
                body = {**everywhere(PROMPT), "model": model, "stream": stream}
                reply = await send(service, key, body, **headers)
                assert reply.status_code in (200, 400), reply.text
                count += 1
        for sim in service.sims.values():
            sim.fault_next("bad_request", 2)
            sim.fault_next("error_mid", 2)
            sim.fault_next("garbage", 2)
        for model in (LOCAL, OTHER, CLAUDE):
            for _ in range(4):
                await send(service, key, {**everywhere(PROMPT), "model": model, "stream": stream})
                count += 1
        for bad, status in broken(PROMPT):
            assert (await send(service, key, bad)).status_code == status, bad
            count += 1
        for name in ("x-tierway-strategy", "x-tierway-max-cost", "x-tierway-timeout", "x-request-id", "cookie"):
            await send(service, key, {**everywhere(PROMPT), "model": "auto"}, **{name: f"{PROMPT} {PROMPT}"})
            count += 1
        session = {"x_tierway_session": "s1"}
        message = [{"role": "user", "content": TOLD}]
        reply = await send(service, key, {"model": "auto", "messages": message, "stream": stream}, **session)
        assert reply.status_code == 200, reply.text
        await settled(service, count + 1)
        await traced(collector, count + 1)
        assert PROMPT.encode() not in collector.raw and TOLD.encode() not in collector.raw
        for place, text in (await told(service)).items():
            assert PROMPT not in text, f"{place}: {around(text)}"
        store = await kept(tmp_path)
        for name, value in store.items():
            history = any(partition.holds(name) for partition in HISTORY)
            assert PROMPT not in name and (history or PROMPT.encode() not in value), (name, value[:500])
        for path, content in files(tmp_path).items():
            assert content.count(PROMPT.encode()) == content.count(TOLD.encode()), path
        assert any(TOLD.encode() in value for value in store.values()), "the conversation is kept"


def around(text: str) -> str:
    at = text.find(PROMPT)
    return text[max(0, at - 300) : at + 100]


async def test_keys_are_nowhere(tmp_path: Path, collector: Collector) -> None:
    """A key that somebody can read in a log or in a copy of the store is a key that has to be replaced everywhere."""
    async with running(tmp_path) as (service, asking, key):
        wrong = f"{key[:-6]}canary"
        body = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
        replies = [
            await send(service, key, body),
            await send(service, key, {**body, "stream": True}, idempotency_key="once"),
            await send(service, wrong, body),
            await send(service, wrong, body, x_api_key=wrong),
            await send(service, ADMIN_KEY, body),
        ]
        for model in (LOCAL, OTHER, CLAUDE):
            service.sims[MODEL_KINDS[model]].fault_next("unauthorized")
            replies.append(await send(service, key, {**body, "model": model}))
        replies.append(await send(service, key, {**body, "metadata": {"key": key}, "user": key}))
        replies.append(await send(service, key, body, idempotency_key=key))
        names = (
            "x_tierway_agent",
            "x_tierway_session",
            "x_request_id",
            "traceparent",
            "tracestate",
            "x_tierway_strategy",
        )
        replies += [await send(service, key, body, **{name: key}) for name in names]
        replies += [await send(service, key, {**body, "model": model}) for model in (key, f"openai/{key}")]
        assert {reply.status_code for reply in replies[-2:]} == {400}
        assert {reply.status_code for reply in replies} >= {200, 401}
        assert (await asking.admin("GET", "keys"))["data"]
        await settled(service, len(replies) - 3)
        await traced(collector, len(service.lines()))
        secrets = (key, wrong, UPSTREAM_KEY, ADMIN_KEY)
        texts = {**await told(service), **{f"reply {n}": reply.text for n, reply in enumerate(replies)}}
        texts |= {f"headers {n}": repr(reply.headers.multi_items()) for n, reply in enumerate(replies)}
        for secret in secrets:
            assert secret.encode() not in collector.raw, collector.spans
            for place, text in texts.items():
                assert secret not in text, f"{place}: {text[:2000]}"
            for name, value in (await kept(tmp_path)).items():
                assert secret not in name and secret.encode() not in value, (name, value[:500])
            for path, content in files(tmp_path).items():
                assert secret.encode() not in content, path


MODEL_KINDS: Final = {model: kind for kind, model in MODELS.items()}
