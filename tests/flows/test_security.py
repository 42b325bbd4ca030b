"""What a stranger tries first, over a real socket: each line of docs/security.md that no smaller test holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from app.access.failures import MOST
from tests.flows.asking import ADMIN, ADMIN_KEY
from tests.flows.raw import RawClient
from tests.flows.service import MODELS, Service, over

pytestmark = pytest.mark.asyncio(loop_scope="function")

REPLY_HEADERS = {
    *(
        "content-type",
        "content-length",
        "date",
        "connection",
        "transfer-encoding",
        "cache-control",
        "retry-after",
        "allow",
    ),
    *("x-request-id", "openai-processing-ms", "x-should-retry", "x-accel-buffering"),
}
"""All that a client may get to see, besides our own x-tierway- and x-ratelimit- headers."""


@pytest_asyncio.fixture(loop_scope="function")
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with over(tmp_path, ("openai", "anthropic"), environ=ADMIN) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="function")
async def closed(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A gateway that has a key, to somebody who has none."""
    async with httpx2.AsyncClient(base_url=service.url, timeout=20) as http:
        made = await http.post("/admin/keys", json={"name": "x"}, headers={"authorization": f"Bearer {ADMIN_KEY}"})
        assert made.status_code == 201, made.text
        http.headers["x-good"] = made.json()["key"]  # for tests to compare; no header that anybody reads
        yield http


@contextlib.asynccontextmanager
async def trap() -> AsyncIterator[tuple[str, list[object]]]:
    """A server that nobody must ask: its address, and who did."""
    seen: list[object] = []

    async def caught(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername"))
        writer.close()

    async with await asyncio.start_server(caught, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen


def ask(model: str, content: Any = "Hello", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


@pytest.mark.parametrize(
    "target",
    [
        *("/admin/keys", "//admin/keys", "/admin/keys/", "/admin//keys", "/./admin/keys", "/v1/../admin/keys"),
        *("/%61dmin/keys", "/admin%2Fkeys", "/ADMIN/keys", "/admin/keys?x=/metrics", "/admin/keys;/metrics"),
        *("/healthz/../admin/keys", "http://elsewhere/admin/keys", "/v1/models", "/%761/models", "//v1/models"),
    ],
)
async def test_no_spelling_of_a_path_gets_round_the_door(
    service: Service, closed: httpx2.AsyncClient, target: str
) -> None:
    """The path that is authenticated is the path that is served; headers that proxies believe change neither."""
    for extra in ("", "x-original-url: /metrics\r\nx-rewrite-url: /healthz\r\nx-forwarded-prefix: /healthz\r\n"):
        client = await RawClient.connect(service.port)
        await client.send(f"GET {target} HTTP/1.1\r\nhost: healthz\r\n{extra}connection: close\r\n\r\n".encode())
        answer = await client.rest()
        client.vanish()
        assert int(answer.split()[1]) in (400, 401, 404, 405), answer[:200]
        assert b'"data"' not in answer


async def test_no_client_chooses_where_a_request_goes(service: Service) -> None:
    """Fields and headers by which other gateways let a client name a server are so much text here."""
    async with trap() as (url, seen), httpx2.AsyncClient(base_url=service.url, timeout=20) as http:
        fields = dict.fromkeys(("api_base", "base_url", "api_url", "upstream", "custom_llm_provider", "webhook"), url)
        headers = dict.fromkeys(
            ("x-api-base", "x-base-url", "x-tierway-upstream", "x-forwarded-host", "x-custom-host"), url
        )
        for model in (MODELS["openai"], url, f"{url}/m", f"openai/{url}"):
            await http.post("/v1/chat/completions", json=ask(model, **fields), headers=headers)
        await asyncio.sleep(0)
        assert seen == []
    assert service.sims["openai"].asked, "the first of them was answered as usual"


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_addresses_of_images_are_passed_on_and_never_fetched(service: Service, kind: str) -> None:
    """Whoever could make the gateway fetch would read what only the gateway reaches."""
    async with trap() as (url, seen), httpx2.AsyncClient(base_url=service.url, timeout=20) as http:
        image = f"{url}/latest/meta-data"
        parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": image}}]
        reply = await http.post("/v1/chat/completions", json=ask(MODELS[kind], parts))
        assert seen == [], reply.text
    if reply.status_code == 200:
        assert image in str(service.sims[kind].asked[-1].as_json())
    else:
        assert reply.status_code == 400, reply.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", path) for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/route", "/v1/feedback")),
        *(
            ("GET", path)
            for path in ("/v1/models", "/v1/models/x", "/v1/streams/resp_1", "/v1/sessions/s", "/admin/keys")
        ),
    ],
)
async def test_who_sends_wrong_keys_is_told_to_wait(closed: httpx2.AsyncClient, method: str, path: str) -> None:
    """At every door, by the address of the connection: a header does not make another one."""
    statuses = []
    for number in range(MOST + 2):
        headers = {"authorization": f"Bearer guess-{number}", "x-forwarded-for": f"192.0.2.{number}"}
        reply = await closed.request(method, path, headers=headers, json=ask("auto") if method == "POST" else None)
        statuses.append(reply.status_code)
    assert statuses == [401] * MOST + [429] * 2, path
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    good = {"authorization": f"Bearer {closed.headers['x-good']}"}
    assert (await closed.get("/v1/models", headers=good)).status_code == 200, "others behind the same address go on"


async def test_browsers_of_other_sites_get_nothing(closed: httpx2.AsyncClient) -> None:
    """A page that somebody visits must not be able to use the gateway on their machine or in their network."""
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    for method in ("OPTIONS", "GET", "POST"):
        for path in ("/v1/chat/completions", "/v1/models", "/admin/keys", "/metrics", "/healthz"):
            reply = await closed.request(method, path, headers=asked)
            assert not [name for name in reply.headers if name.startswith("access-control-")], path
            assert method != "OPTIONS" or reply.status_code >= 400


@pytest.mark.parametrize("stream", [False, True])
async def test_clients_see_listed_headers_only(service: Service, stream: bool) -> None:
    """What an upstream says about itself, its cookies and its servers stays with it."""
    async with httpx2.AsyncClient(base_url=service.url, timeout=20) as http:
        for model in (MODELS["openai"], MODELS["anthropic"], "openai/nobody"):
            reply = await http.post("/v1/chat/completions", json=ask(model, stream=stream))
            names = {name for name in reply.headers if not name.startswith(("x-tierway-", "x-ratelimit-"))}
            assert names <= REPLY_HEADERS, names - REPLY_HEADERS
