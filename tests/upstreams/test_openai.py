"""Any OpenAI-compatible server, over real HTTP: what each oddity would cost the caller is said at its test."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from aiohttp import web

from app.core.card import Card
from app.core.errors import (
    AccountFault,
    BadReply,
    Busy,
    ContextLengthExceeded,
    GatewayError,
    Incomplete,
    Refused,
    Rejected,
    ServerFault,
    Throttled,
    UpstreamFault,
)
from app.core.events import Answer, Start, fold
from app.core.money import Tokens
from app.core.request import Request, Terms
from app.core.upstream import Upstream
from app.upstreams.http import Clocks, Transport
from app.upstreams.openai import OpenAIUpstream
from app.upstreams.openai_models import CHATS
from tests.upstreams.web import Fake, as_json, as_stream, chunk, question, serving, texts, usage, vectors

CHAT, EMBED, MODELS = "POST /v1/chat/completions", "POST /v1/embeddings", "GET /v1/models"
CARD = Card("up/org/m-8B", "org/m-8B", "up", "openai", False, CHATS)


def upstream(fake: Fake, transport: Transport, api_key: str | None = "sk-ours") -> OpenAIUpstream:
    return OpenAIUpstream(
        "up", base_url=fake.url, api_key=api_key, local=False, clocks=Clocks(first_token=5.0), transport=transport
    )


async def answer(up: Upstream, request: Request, card: Card = CARD) -> Answer:
    return fold([event async for event in up.stream(request, card)])


async def test_a_stream_is_asked_for_and_read(transport: Transport) -> None:
    fake = Fake({CHAT: as_stream(chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop"), usage())})
    async with serving(fake):
        reply = await answer(upstream(fake, transport), question())
    assert (reply.choices[0].text, reply.choices[0].finish) == ("Hello", "stop")
    assert reply.usage is not None and reply.usage.tokens == Tokens(prompt=3, completion=2)
    assert fake.asked[0].json["model"] == "org/m-8B"
    assert fake.asked[0].json["stream_options"] == {"include_usage": True}


async def test_a_whole_answer_is_asked_for_and_read(transport: Transport) -> None:
    body = {
        "id": "c1",
        "object": "chat.completion",
        "created": 7,
        "model": "/path/on/their/disk",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    }
    fake = Fake({CHAT: as_json(body)})
    async with serving(fake):
        reply = await answer(upstream(fake, transport), question(stream=False))
    assert (reply.start.model, reply.choices[0].text) == ("org/m-8B", "Hello")
    assert reply.usage is None  # unknown, for the gateway to estimate; never zero
    assert fake.asked[0].json["stream"] is False


async def test_our_key_and_the_callers_ids_go_along_and_nothing_else_of_theirs(transport: Transport) -> None:
    """The caller's key for us must never reach an upstream."""
    fake = Fake({CHAT: as_stream(chunk({"content": "x"}, "stop"))})
    terms = Terms("req-7", "req-7", trace_parent="00-1-2-01")
    async with serving(fake):
        await answer(upstream(fake, transport), question(terms=terms))
        await answer(upstream(fake, transport, api_key=None), question())
    first, second = (asked.headers for asked in fake.asked)
    assert first["authorization"] == "Bearer sk-ours"
    assert (first["x-request-id"], first["traceparent"]) == ("req-7", "00-1-2-01")
    assert "authorization" not in second
    assert "traceparent" not in second
    extra = set(first) - {"authorization", "x-request-id", "traceparent", "content-type", "accept-encoding"}
    assert extra <= {"host", "accept", "content-length"}


@pytest.mark.parametrize(
    ("chunks", "done"),
    [
        ([chunk({"role": "assistant"}), chunk({"content": "Hi"}), chunk({}, "stop"), usage()], False),
        ([chunk({"content": "Hi"}, "stop", usage=usage()["usage"])], True),
        (
            [{**chunk({"content": "Hi"}), "choices": [{"index": 0, "delta": {"content": "Hi"}}]}, chunk({}, "stop")],
            True,
        ),
    ],
    ids=["no [DONE]", "usage with the finish", "no finish_reason key"],
)
async def test_oddities_of_other_servers_are_read_all_the_same(
    transport: Transport, chunks: list[Any], done: bool
) -> None:
    fake = Fake({CHAT: as_stream(*chunks, done=done)})
    async with serving(fake):
        reply = await answer(upstream(fake, transport), question())
    assert (reply.choices[0].text, reply.choices[0].finish) == ("Hi", "stop")


def failed(status: int, message: str, code: str | int | None = None) -> tuple[int, str, bytes]:
    return as_json({"error": {"message": message, "type": None, "param": None, "code": code}}, status)


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        (failed(400, "no"), Rejected),
        (as_json({"detail": [{"msg": "extra fields"}]}, 422), Rejected),
        (failed(400, "maximum context length is 8 tokens", 400), ContextLengthExceeded),
        (failed(401, "no", "invalid_api_key"), AccountFault),
        (failed(429, "no money", "insufficient_quota"), AccountFault),
        (failed(429, "slow down", "rate_limit_exceeded"), Throttled),
        (failed(404, "no such model"), AccountFault),
        ((500, "text/plain", b"Internal Server Error"), ServerFault),
        ((502, "text/html", b"<html>nginx</html>"), ServerFault),
        ((503, "text/plain", b""), Busy),
        ((200, "text/html", b"<html>login</html>"), BadReply),
        ((200, "application/json", b"{"), BadReply),
        ((200, "text/event-stream", b"data: {\n\n"), BadReply),
        (as_stream(chunk({"content": "half"})), Incomplete),
        (as_stream({"error": {"message": "boom", "code": 500}}), ServerFault),
    ],
)
async def test_every_failure_has_its_meaning(
    transport: Transport, route: tuple[int, str, bytes], fault: type[GatewayError]
) -> None:
    """It decides whether another model is asked, and whether this one is blamed."""
    fake = Fake({CHAT: route})
    async with serving(fake):
        with pytest.raises(fault):
            await answer(upstream(fake, transport), question())


async def test_a_client_that_leaves_stops_the_upstream(transport: Transport) -> None:
    """Within a moment: every token after that would be paid for and thrown away."""
    left = asyncio.Event()

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(as_stream(chunk({"content": "x"}), done=False)[2])
                await asyncio.sleep(0.01)
        except (OSError, asyncio.CancelledError):
            left.set()
            raise

    fake = Fake({CHAT: endless})
    async with serving(fake):
        async with contextlib.aclosing(upstream(fake, transport).stream(question(), CARD)) as events:
            assert isinstance(await anext(events), Start)
        async with asyncio.timeout(2):
            await left.wait()


async def test_embeddings_are_asked_for_and_read(transport: Transport) -> None:
    fake = Fake({EMBED: vectors(2)})
    async with serving(fake):
        reply = await upstream(fake, transport).embed(texts("a", "b"), CARD)
    assert [list(vector) for vector in reply.vectors] == [[0.0, 1.0], [1.0, 1.0]]
    assert reply.prompt_tokens == 4
    assert fake.asked[0].json["model"] == "org/m-8B"
    assert fake.asked[0].headers["x-request-id"] == "r1"


async def test_refused_embeddings_have_their_meaning(transport: Transport) -> None:
    fake = Fake({EMBED: as_json({"error": {"message": "too many"}}, 429)})
    async with serving(fake):
        with pytest.raises(Throttled):
            await upstream(fake, transport).embed(texts("a"), CARD)


async def test_models_become_cards(transport: Transport) -> None:
    listed = [
        {"id": "org/m-8B", "object": "model", "created": 5, "owned_by": "org", "max_model_len": 4096},
        {"id": "plain", "context_length": 9, "max_completion_tokens": 3},
        {"id": 7},
        "nonsense",
    ]
    fake = Fake({MODELS: as_json({"object": "list", "data": listed})})
    async with serving(fake):
        first, second = await upstream(fake, transport).cards()
    assert (first.id, first.name, first.upstream, first.kind) == ("up/org/m-8B", "org/m-8B", "up", "openai")
    assert (first.context_window, first.complexity, first.parameters) == (4096, (0.0, 0.4), 8_000_000_000)
    assert (first.created, first.owned_by, first.local, first.abilities) == (5, "org", False, CHATS)
    assert (second.context_window, second.max_output, second.complexity) == (9, 3, (0.0, 1.0))
    assert fake.asked[0].headers["authorization"] == "Bearer sk-ours"


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        (as_json({}, 401), AccountFault),
        (as_json({}, 404), AccountFault),
        (as_json({}, 400), BadReply),
        (as_json({}, 500), ServerFault),
        (as_json({"data": 5}), BadReply),
        ((200, "text/html", b"<html>"), BadReply),
    ],
)
async def test_a_list_that_fails_is_a_fault_of_the_upstream(
    transport: Transport, route: tuple[int, str, bytes], fault: type[UpstreamFault]
) -> None:
    """Whatever it is, it is not the caller's: nobody asked."""
    fake = Fake({MODELS: route})
    async with serving(fake):
        with pytest.raises(fault):
            await upstream(fake, transport).cards()


async def test_a_server_that_is_not_there_is_refused(transport: Transport) -> None:
    with pytest.raises(Refused):
        await upstream(Fake({}, "http://127.0.0.1:1"), transport).cards()


async def test_closing_closes_the_connections(transport: Transport) -> None:
    fake = Fake({MODELS: as_json({"data": []})})
    async with serving(fake):
        up: Upstream = upstream(fake, transport)
        assert await up.cards() == ()
        await up.close()
