"""Without these some errors come as HTML, as FastAPI's own objects, or with a stack trace."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import APIRouter, HTTPException
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import __version__
from app.api.app import fastapi_app, forget_endpoints
from app.core.errors import Overloaded
from tests.api.site import error, site


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    router = APIRouter()

    @router.get("/full")
    async def full() -> None:
        raise Overloaded("Full.", retry_after=2)

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the password is x")

    @router.get("/status/{status}")
    async def refused(status: int) -> None:
        raise HTTPException(status, "Not like this.")

    @router.get("/number")
    async def number(n: int) -> int:
        return n

    @router.get("/both")
    @router.delete("/both")
    async def both() -> None:
        """Two routes."""

    async with site(router) as client:
        yield client


async def test_nothing_there(client: httpx2.AsyncClient) -> None:
    reply = await client.get("/v1/nothing?secret=1")
    assert reply.status_code == 404 and error(reply)["code"] == "not_found"
    assert "/v1/nothing" in error(reply)["message"] and "secret" not in error(reply)["message"]
    assert "/docs" in error(reply)["message"], "people leave out the /v1 of the base URL"
    for path in ("/v1/responses", "/v1/messages", "/v1/completions"):
        reply = await client.post(path, json={})
        said = error(reply)["message"]
        assert reply.status_code == 404 and "/v1/chat/completions" in said, "whose SDK asks there learns what to set"


@pytest.mark.parametrize("asked", ["/chat/completions", "/v1/v1/chat/completions"])
async def test_who_has_the_base_url_wrong_is_told_so(client: httpx2.AsyncClient, asked: str) -> None:
    """The first mistake of most, and a 404 that says only that there is nothing costs them an hour."""
    said = error(await client.post(asked, json={}))["message"]
    assert "Did you mean /v1/chat/completions?" in said and "base URL" in said


async def test_a_long_path_is_not_repeated_whole(client: httpx2.AsyncClient) -> None:
    for method in ("GET", "POST"):
        assert len((await client.request(method, "/number" + "x" * 5000)).content) < 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS"])
async def test_another_method(client: httpx2.AsyncClient, method: str) -> None:
    reply = await client.request(method, "/full", headers={"x-request-id": "mine"})
    assert reply.status_code == 405 and reply.headers["allow"] == "GET" and reply.headers["x-request-id"] == "mine"
    if method != "HEAD":
        assert error(reply)["code"] == "method_not_allowed" and method in error(reply)["message"]


async def test_a_path_says_all_the_methods_it_takes(client: httpx2.AsyncClient) -> None:
    """Of two routes the framework names the first, and a client takes the other for missing."""
    for path, allow in (("/both", "DELETE, GET"), ("/both/", None), ("/openapi.json", "GET, HEAD")):
        reply = await client.put(path)
        assert (reply.status_code, reply.headers.get("allow")) == (405 if allow else 404, allow)
        error(reply)


async def test_a_slash_too_many_is_not_redirected(client: httpx2.AsyncClient) -> None:
    """A redirect has a body that is not ours, and turns a POST into a GET on the way."""
    reply = await client.get("/full/")
    assert reply.status_code == 404 and error(reply)["code"] == "not_found"


async def test_an_error_of_the_tree_keeps_its_headers(client: httpx2.AsyncClient) -> None:
    reply = await client.get("/full")
    assert reply.status_code == 503 and error(reply)["code"] == "overloaded" and reply.headers["retry-after"] == "2"


async def test_a_fault_of_ours_says_the_id_and_nothing_else(client: httpx2.AsyncClient) -> None:
    reply = await client.get("/broken", headers={"x-request-id": "mine"})
    assert reply.status_code == 500 and error(reply)["code"] == "internal_error"
    assert "mine" in error(reply)["message"] and "password" not in reply.text


@pytest.mark.parametrize(("raised", "sent"), [(400, 400), (403, 400), (418, 400), (500, 500), (503, 500)])
async def test_errors_of_the_framework_have_our_shape(client: httpx2.AsyncClient, raised: int, sent: int) -> None:
    reply = await client.get(f"/status/{raised}")
    assert reply.status_code == sent and error(reply)["code"] == ("invalid_value" if sent == 400 else "internal_error")
    assert ("Not like this" in error(reply)["message"]) == (sent == 400)


@pytest.mark.parametrize("query", ["", "?n=x"])
async def test_a_wrong_value_is_422_and_names_its_field(client: httpx2.AsyncClient, query: str) -> None:
    reply = await client.get(f"/number{query}")
    assert reply.status_code == 422 and error(reply)["param"] == "n" and error(reply)["message"].startswith("n: ")


async def test_the_document_is_there(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["info"]["title"] == "Tierway" and document["info"]["version"] == __version__
    assert "/full" in document["paths"] and "security" not in document["paths"]["/full"]["get"]
    page = await client.get("/docs")
    assert page.status_code == 200 and "/openapi.json" in page.text


class Service:
    """What an endpoint was made with."""


async def test_an_app_that_is_gone_holds_nothing() -> None:
    """Each reload makes a new one: what the framework remembers of endpoints would keep all gateways there were."""

    async def used_and_gone() -> weakref.ref[Service]:
        service, router = Service(), APIRouter()

        @router.get("/")
        async def endpoint() -> str:
            return type(service).__name__

        async with site(router) as client:
            assert (await client.get("/")).json() == "Service"
        fastapi_app([router]).openapi()
        return weakref.ref(service)

    gone = await used_and_gone()
    forget_endpoints()
    gc.collect()
    assert gone() is None


async def test_the_framework_tells_nobody_of_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own spans hold stack traces and what errors say, and it makes them wherever a provider of spans is about."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    router = APIRouter()

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the password is x")

    async with site(router) as http:
        assert (await http.get("/broken")).status_code == 500
    assert exporter.get_finished_spans() == ()
