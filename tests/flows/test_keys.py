"""Keys from the first one to the last, over two gateways and without their store."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio

from app.core.clock import SystemClock
from tests.flows.service import MODELS, Service, over

pytestmark = pytest.mark.asyncio(loop_scope="function")

ADMIN = "the-admin-key-of-this-test"
ENVIRON = {"TIERWAY_ADMIN_KEY": ADMIN}
KINDS = ("ollama", "openai", "anthropic")
clock = SystemClock()


@pytest_asyncio.fixture(loop_scope="function")
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with over(tmp_path, KINDS, environ=ENVIRON) as running:
        yield running


class Admin:
    """Whoever has the admin key."""

    def __init__(self, service: Service) -> None:
        self._http = httpx2.AsyncClient(
            base_url=f"{service.url}/admin", headers={"authorization": f"Bearer {ADMIN}"}, timeout=10
        )

    async def __aenter__(self) -> Admin:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def create(self, **spec: Any) -> dict[str, Any]:
        reply = await self._http.post("/keys", json={"name": "test", **spec})
        assert reply.status_code == 201, reply.text
        made: dict[str, Any] = reply.json()
        return made

    async def revoke(self, key_id: str) -> None:
        assert (await self._http.delete(f"/keys/{key_id}")).status_code == 200

    async def keys(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = (await self._http.get("/keys")).json()["data"]
        return listed


async def chat(service: Service, key: str, model: str = "auto") -> str:
    """Who answered."""
    client = service.clients[0] if service.clients else service.openai()
    reply = await client.with_options(api_key=key).chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hi"}]
    )
    return str((reply.model_extra or {})["tierway"]["model"])


async def refused(service: Service, key: str) -> bool:
    try:
        await chat(service, key)
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
        return True
    return False


async def within(seconds: float, true: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    end = clock.monotonic() + seconds
    while not await true():
        assert clock.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.05)


async def test_the_first_key_closes_the_door(service: Service) -> None:
    """Nobody needs a key until there is one; from then on everybody does, on every endpoint, for good. The secret is
    shown once."""
    assert not await refused(service, "anything")
    async with Admin(service) as admin:
        made = await admin.create()
        assert await refused(service, "anything") and not await refused(service, made["key"])
        async with httpx2.AsyncClient(base_url=service.url) as http:
            for path in ("/v1/models", "/v1/models/auto"):
                assert (await http.get(path)).status_code == 401
                assert (await http.get(path, headers={"x-api-key": made["key"]})).status_code == 200
            assert (
                await http.post("/v1/embeddings", json={"model": "tierway/static", "input": "x"})
            ).status_code == 401
            assert (await http.get("/healthz")).status_code == (await http.get("/metrics")).status_code == 200
            for header in ({}, {"authorization": f"Bearer {made['key']}"}):
                assert (await http.get("/admin/keys", headers=header)).status_code == 401
        assert await service.metric("tierway_requests_total", status="401") >= 1
        assert made["key"] not in str(await admin.keys()) and made["key"] not in service.log.getvalue().decode()
        await admin.revoke(made["id"])
        assert await refused(service, made["key"]) and await refused(service, "anything")


async def test_allowed_models(service: Service) -> None:
    """A key for local models cannot run up a bill: not by name, not through `auto`, and it does not see the others."""
    async with Admin(service) as admin:
        local = (await admin.create(models=["ollama/*"]))["key"]
        private = (await admin.create(privacy="local"))["key"]
    assert await chat(service, local, MODELS["ollama"]) == MODELS["ollama"]
    for model in (MODELS["anthropic"], "claude-sim-large"):
        for key in (local, private):
            with pytest.raises(openai.PermissionDeniedError) as caught:
                await chat(service, key, model)
            assert (caught.value.code, caught.value.param) == ("model_not_allowed", "model")
    assert await chat(service, private, "auto") == MODELS["ollama"]
    listed = [model.id async for model in service.openai(api_key=local).models.list()]
    assert MODELS["ollama"] in listed and MODELS["anthropic"] not in listed


async def test_the_log_knows_whose_request_it_was(service: Service) -> None:
    """Spend is told apart by key and tenant; the secret is nowhere."""
    async with Admin(service) as admin:
        made = await admin.create(tenant="acme")
    await chat(service, made["key"])
    await asyncio.sleep(0.01)
    line = service.lines()[-1]
    assert (line["key_id"], line["tenant"]) == (made["id"], "acme")


async def test_expired_keys(service: Service) -> None:
    async with Admin(service) as admin:
        made = await admin.create(expires_at=int(clock.now()) + 2)
        assert not await refused(service, made["key"])
        await within(4, lambda: refused(service, made["key"]))


async def test_wrong_specs(service: Service) -> None:
    """A limit that is misspelt is an error: silently ignored, it would be no limit."""
    headers = {"authorization": f"Bearer {ADMIN}"}
    async with httpx2.AsyncClient(base_url=service.url, headers=headers) as http:
        for spec in ({}, {"name": "x", "budgett": 5}, {"name": "x", "models": "all"}, {"name": ""}):
            reply = await http.post("/admin/keys", json=spec)
            assert reply.status_code == 422 and reply.json()["error"]["code"] == "invalid_value"
        missing = await http.delete("/admin/keys/none")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_revoked_everywhere_within_two_seconds(tmp_path: Path) -> None:
    """A stolen key stops working on every gateway that shares the store, and a new one starts to; no restart."""
    async with over(tmp_path, ["openai"], environ=ENVIRON) as one, over(tmp_path, ["openai"], environ=ENVIRON) as other:
        async with Admin(one) as admin:
            made = await admin.create()
            await within(2, lambda: _not(refused(other, made["key"])))
            await within(2, lambda: refused(other, "anything"))
            await admin.revoke(made["id"])
            await within(2, lambda: refused(other, made["key"]))


async def _not(question: Coroutine[Any, Any, bool]) -> bool:
    return not await question


def store_group(folder: Path) -> int:
    """The process group of the embedded server."""
    [lock] = folder.rglob("server.lock")
    return int(lock.read_text().split()[0])


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
async def test_without_the_store(tmp_path: Path, what: signal.Signals) -> None:
    """The store dies or hangs: who had a key goes on, who had none stays out, readiness tells; afterwards keys can be
    made again and nothing is lost."""
    async with over(tmp_path, ["openai"], environ=ENVIRON) as service, Admin(service) as admin:
        made = await admin.create()
        group = store_group(tmp_path)
        os.killpg(group, what)
        try:
            start = clock.monotonic()
            for _ in range(20):
                assert await chat(service, made["key"]) == MODELS["openai"]
                assert await refused(service, "anything")
            assert clock.monotonic() - start < 3, "nobody waits for the store"
            async with httpx2.AsyncClient(base_url=service.url) as http:
                assert (await http.get("/readyz")).status_code == 200
        finally:
            if what is signal.SIGSTOP:
                os.killpg(group, signal.SIGCONT)

        async def works_again() -> bool:
            try:
                return any(key["id"] == made["id"] for key in await admin.keys())
            except KeyError:
                return False

        await within(10, works_again)
        assert not await refused(service, (await admin.create())["key"])
        assert not await refused(service, made["key"])
