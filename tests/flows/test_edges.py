"""The front door: what is wrong with a request is said in one shape, whatever it is, and nobody holds the door open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx2
import openai
import orjson
import pytest
import pytest_asyncio

from app.api import guard, inbound
from tests.flows.raw import RawClient, chat, get, post
from tests.flows.service import MODELS, Service, over

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: Final = "/v1/chat/completions"
MODEL: Final = MODELS["openai"]
GOOD: Final = orjson.dumps(chat(MODEL, "Hi"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with over(Path(tmp_path_factory.mktemp("edges")), ["openai", "ollama"]) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def http(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=service.url, timeout=15) as client:
        yield client


def error_of(reply: httpx2.Response) -> tuple[int, str, str | None]:
    """Status, code and param; and the shape is right."""
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"]
    assert reply.headers["content-type"] == "application/json" and reply.headers["x-request-id"]
    return reply.status_code, error["code"], error["param"]


def with_(**fields: Any) -> bytes:
    return orjson.dumps({**chat(MODEL, "Hi"), **fields})


WRONG: Final[dict[str, tuple[str, str, bytes | None, dict[str, str], tuple[int, str, str | None]]]] = {
    "unknown path": ("GET", "/v1/nothing", None, {}, (404, "not_found", None)),
    "unknown path with a body": ("POST", "/v1/chat/completion", GOOD, {}, (404, "not_found", None)),
    "wrong method": ("GET", CHAT, None, {}, (405, "method_not_allowed", None)),
    "wrong method elsewhere": ("POST", "/v1/models", GOOD, {}, (405, "method_not_allowed", None)),
    "empty body": ("POST", CHAT, b"", {}, (400, "invalid_json", None)),
    "no JSON": ("POST", CHAT, b"model=gpt", {}, (400, "invalid_json", None)),
    "an array": ("POST", CHAT, b"[]", {}, (400, "invalid_value", None)),
    "bad UTF-8": ("POST", CHAT, GOOD.replace(b"Hi", b"\xff\xfe"), {}, (400, "invalid_json", None)),
    "NaN": ("POST", CHAT, GOOD[:-1] + b',"temperature":NaN}', {}, (400, "invalid_json", None)),
    "a lone surrogate": ("POST", CHAT, GOOD.replace(b"Hi", b"\\ud800"), {}, (400, "invalid_json", None)),
    "a nesting bomb": ("POST", CHAT, b"[" * 100_000, {}, (400, "invalid_json", None)),
    "deep": (
        "POST",
        CHAT,
        with_(metadata={"a": orjson.Fragment(b"[" * 80 + b"]" * 80)}),
        {},
        (400, "invalid_json", None),
    ),
    "no messages": ("POST", CHAT, b'{"model":"auto"}', {}, (400, "invalid_value", "messages")),
    "no model": ("POST", CHAT, b'{"messages":[{"role":"user","content":"x"}]}', {}, (400, "invalid_value", "model")),
    "a text for a number": ("POST", CHAT, with_(max_tokens="many"), {}, (400, "invalid_value", "max_tokens")),
    "unknown model": ("POST", CHAT, with_(model="sim-plan"), {}, (404, "model_not_found", "model")),
    "unknown model of the list": ("GET", "/v1/models/openai/none", None, {}, (404, "model_not_found", "model")),
    "an embedder that chats": (
        "POST",
        CHAT,
        with_(model="tierway/static"),
        {},
        (400, "unsupported_parameter", "model"),
    ),
    "a chat model that embeds": (
        *("POST", "/v1/embeddings", orjson.dumps({"model": MODEL, "input": "x"}), {}),
        (400, "unsupported_parameter", "model"),
    ),
    "embeddings without input": ("POST", "/v1/embeddings", b'{"model":"auto"}', {}, (400, "invalid_value", "input")),
    "a compressed body": ("POST", CHAT, GOOD, {"content-encoding": "gzip"}, (400, "invalid_value", None)),
    "a timeout in words": (
        *("POST", CHAT, GOOD, {"x-tierway-timeout": "x"}),
        (400, "invalid_value", "x-tierway-timeout"),
    ),
    "no time at all": ("POST", CHAT, GOOD, {"x-tierway-timeout": "0"}, (400, "invalid_value", "x-tierway-timeout")),
    "endless time": ("POST", CHAT, GOOD, {"x-tierway-timeout": "inf"}, (400, "invalid_value", "x-tierway-timeout")),
    "a strategy there is not": (
        *("POST", CHAT, GOOD, {"x-tierway-strategy": "luck"}),
        (400, "invalid_value", "x-tierway-strategy"),
    ),
    "a priority there is not": (
        *("POST", CHAT, GOOD, {"x-tierway-priority": "mine"}),
        (400, "invalid_value", "x-tierway-priority"),
    ),
    "admin while it is off": ("GET", "/admin/keys", None, {}, (404, "not_found", None)),
}


@pytest.mark.parametrize("case", WRONG)
async def test_wrong_requests(http: httpx2.AsyncClient, case: str) -> None:
    """Always OpenAI's error object, naming the field: an SDK shows it, and nobody has to read a proxy's HTML."""
    method, path, body, headers, wanted = WRONG[case]
    assert error_of(await http.request(method, path, content=body, headers=headers)) == wanted


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_any_content_type_is_read(http: httpx2.AsyncClient, content_type: str) -> None:
    """OpenAI takes JSON under any name; so do the scripts written for it rely on."""
    headers = {"content-type": content_type} if content_type else {}
    assert (await http.post(CHAT, content=GOOD, headers=headers)).status_code == 200


async def test_unknown_models_are_guessed_at(http: httpx2.AsyncClient) -> None:
    """A typo in a model's name costs a glance instead of a search."""
    reply = await http.post(CHAT, content=with_(model="sim-plan"))
    assert "openai/sim-plain" in reply.json()["error"]["message"]


async def test_exceptions_of_the_client(service: Service) -> None:
    """The SDK raises the exception that a program written for OpenAI expects."""
    client = service.openai()
    messages: Any = [{"role": "user", "content": "Hi"}]
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="nope", messages=messages)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert missing.value.request_id
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model=MODEL, messages=messages, temperature=17)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nope")


async def test_a_body_too_large(service: Service) -> None:
    """One byte over 20 MB: the client gets the answer (not a broken pipe) and can read it, declared or chunked, and
    the limit itself is still taken."""
    limit = service.ready.settings.limits.body_bytes
    messages: Any = [{"role": "user", "content": "x" * limit}]
    with pytest.raises(openai.APIStatusError) as caught:
        await service.openai().chat.completions.create(model=MODEL, messages=messages)
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")

    async def pieces(size: int) -> AsyncIterator[bytes]:
        yield GOOD.ljust(size // 2)
        yield b" " * (size - size // 2)

    async with httpx2.AsyncClient(base_url=service.url, timeout=15) as client:
        assert error_of(await client.post(CHAT, content=pieces(limit + 1)))[:2] == (413, "request_too_large")
        assert (await client.post(CHAT, content=pieces(limit))).status_code == 200


@pytest.mark.parametrize(
    ("given", "kept"),
    [("mine-1.a:b_c", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("<script>", False), ("", False)],
)
async def test_request_ids(service: Service, http: httpx2.AsyncClient, given: str, kept: bool) -> None:
    """One's own id comes back, reaches the upstream and the log; what could break a header or a log line does not."""
    for content in (GOOD, b"{"):
        reply = await http.post(CHAT, content=content, headers={"x-request-id": given})
        seen = reply.headers["x-request-id"]
        assert (seen == given) is kept and (kept or seen.startswith("req_"))
    reply = await http.post(CHAT, content=GOOD, headers={"x-request-id": given})
    seen = reply.headers["x-request-id"]
    assert service.sims["openai"].asked[-1].headers["x-request-id"] == seen
    await asyncio.sleep(0.01)
    assert service.lines()[-1]["request_id"] == seen
    elsewhere = await http.get("/v1/models/none", headers={"x-request-id": given})
    assert (elsewhere.headers["x-request-id"] == given) is kept


async def test_what_is_refused_is_recorded(service: Service, http: httpx2.AsyncClient) -> None:
    """An operator sees who knocks with broken requests: each is a line of the log and a count, once."""
    count = await service.metric("tierway_requests_total", status="400")
    for path, name in ((CHAT, "chat"), ("/v1/embeddings", "embeddings")):
        await http.post(path, content=b"{", headers={"x-request-id": f"broken-{name}"})
        await asyncio.sleep(0.01)
        lines = [line for line in service.lines() if line["request_id"] == f"broken-{name}"]
        assert [(line["endpoint"], line["status"], line["error_code"]) for line in lines] == [
            (name, 400, "invalid_json")
        ]
    assert await service.metric("tierway_requests_total", status="400") == count + 2


WITHOUT_EFFECT: Final = {f"x-tierway-{name}": "1" for name in ("cache", "maxcost")}


async def test_headers_without_effect_are_named(http: httpx2.AsyncClient) -> None:
    """A header that does nothing here is said to do nothing, instead of leaving somebody to believe in it."""
    reply = await http.post(CHAT, content=GOOD, headers=WITHOUT_EFFECT)
    assert reply.status_code == 200
    assert set(reply.headers["x-tierway-ignored"].split(", ")) == set(WITHOUT_EFFECT)


async def test_headers_with_effect_are_not_named(http: httpx2.AsyncClient) -> None:
    """A session of one's own keeps its model, and a limit is kept: a model of unknown price is not asked under one."""
    reply = await http.post(CHAT, content=GOOD, headers={"x-tierway-session": "mine"})
    assert reply.status_code == 200 and "x-tierway-ignored" not in reply.headers
    limited = await http.post(CHAT, content=GOOD, headers={"x-tierway-max-cost": "1"})
    assert error_of(limited) == (429, "budget_exceeded", "x-tierway-max-cost")


async def test_what_operators_look_at(http: httpx2.AsyncClient) -> None:
    """Liveness, readiness, metrics, and a document of every endpoint, the token paths too."""
    assert (await http.get("/healthz")).json()["status"] == "ok"
    ready = (await http.get("/readyz")).json()
    assert ready["status"] == "ready" and ready["checks"]["upstreams"] == {"openai": "ok", "ollama": "ok"}
    metrics = await http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain") and "tierway_requests_total" in metrics.text
    document = (await http.get("/openapi.json")).json()
    assert {CHAT, "/v1/embeddings", "/v1/models", "/healthz", "/readyz", "/metrics", "/admin/keys"} <= set(
        document["paths"]
    )
    assert CHAT in (await http.get("/docs")).text


async def test_ids_with_slashes(http: httpx2.AsyncClient) -> None:
    """`/v1/models/openai/sim-plain` is one model, as is the bare name."""
    for path in ("openai/sim-plain", "openai%2Fsim-plain", "sim-plain"):
        assert (await http.get(f"/v1/models/{path}")).json()["id"] == "openai/sim-plain"
    assert (await http.get("/v1/models/auto")).json()["id"] == "auto"


# --- heads and half-sent requests -----------------------------------------------------------------------------------

BOMBS: Final = {
    "one endless header": (b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 60_000, 431),
    "one large header": (b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 33_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431),
    "an endless path": (b"GET /" + b"a" * 60_000, 431),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "a broken line": (b"GET /healthz HTTP/nine\r\n\r\n", 400),
    "two lengths": (b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400),
}


@pytest.mark.parametrize("case", BOMBS)
async def test_bad_heads(service: Service, case: str) -> None:
    """A head beyond all bounds, or no head at all, is refused in our own shape and the connection closed."""
    data, status = BOMBS[case]
    client = await RawClient.connect(service.port)
    await client.send(data[:1_000])
    await asyncio.sleep(0.02)  # what follows is a piece of its own
    await client.send(data[1_000:])
    head, _, body = (await client.rest(5)).partition(b"\r\n\r\n")
    client.vanish()
    assert head.startswith(b"HTTP/1.1 %d " % status) and b"content-type: application/json" in head
    assert set(orjson.loads(body)["error"]) == {"message", "type", "param", "code"}


class Hasty(guard.GuardedProtocol):
    head_seconds = 0.2


async def test_who_does_not_finish_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that are opened, half sent or left idle must not pile up until nobody can connect (slow loris)."""
    monkeypatch.setattr(inbound, "STALL_SECONDS", 0.2)
    whole = post(GOOD)
    starts = {
        "nothing": (b"", b""),
        "half a head": (whole[:30], b"HTTP/1.1 408"),
        "half a body": (whole[:-5], b"HTTP/1.1 408"),
        "nothing more": (get("/healthz"), b"HTTP/1.1 200"),
    }
    async with over(tmp_path, ["openai"], server_options={"http": Hasty, "timeout_keep_alive": 1}) as service:

        async def one(data: bytes, reply: bytes) -> None:
            client = await RawClient.connect(service.port)
            await client.send(data)
            received = await client.rest(4)
            assert received.startswith(reply) and bool(received) is bool(reply)
            client.vanish()

        await asyncio.gather(*(one(*start) for start in starts.values()))
        assert await service.metric("tierway_in_flight_requests") == 0


async def test_one_connection_for_many_requests(service: Service) -> None:
    """Errors do not cost a connection, and requests sent ahead are answered in order."""
    client = await RawClient.connect(service.port)
    await client.send(
        post(b"{") + get("/healthz") + post(GOOD) + get("/v1/nothing") + post(chat(MODEL, "Hi", stream=True))
    )
    assert [(await client.reply())[0] for _ in range(5)] == [400, 200, 200, 404, 200]
    client.vanish()


async def test_too_many_at_once(tmp_path: Path) -> None:
    """Beyond the limit a request is refused at once, to be tried again, instead of waiting until everything is slow."""
    async with over(tmp_path, ["openai"], limits={"in_flight": 2}) as service:
        service.sims["openai"].fault_next("hang", times=2)
        holders = [await RawClient.connect(service.port) for _ in range(2)]
        for holder in holders:
            await holder.send(post(GOOD))
        while len(service.sims["openai"].asked) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(openai.InternalServerError) as caught:
            await service.openai().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
        assert (caught.value.status_code, caught.value.code) == (503, "overloaded")
        assert caught.value.response.headers["retry-after"] == "1"
        for holder in holders:
            holder.vanish()
        await asyncio.sleep(0.1)
        assert (await service.openai().models.list()).data
        await service.openai().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
