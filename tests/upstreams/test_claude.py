"""Claude over real HTTP: keys and versions in the right headers, models with what they can do, faults as our errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web

from app.core.card import Ability, Card
from app.core.clock import ManualClock
from app.core.errors import (
    AccountFault,
    BadReply,
    Busy,
    ContextLengthExceeded,
    GatewayError,
    Incomplete,
    Refused,
    Throttled,
    UnsupportedParameter,
)
from app.core.events import Answer, fold
from app.core.request import EmbeddingRequest, Request, Terms
from app.core.upstream import Upstream
from app.upstreams.claude import MAX_PAGES, TOP, ClaudeUpstream
from app.upstreams.http import Clocks, Transport
from app.wire.messages.rules import Rules, rules_for
from tests.upstreams.web import Fake, as_json, question, serving
from tests.wire.messages_cases import begun, ended, sse, text

MESSAGES, MODELS = "POST /v1/messages", "GET /v1/models"
NAME = "claude-opus-5-5"
CARD = Card(f"claude/{NAME}", NAME, "claude", "anthropic", False, frozenset({Ability.CHAT}))
REPLY = {
    "id": "msg_1",
    "type": "message",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 5, "output_tokens": 3},
}
NOW = 1_790_000_000.0  # in September 2026


def upstream(url: str, transport: Transport, **fields: Any) -> ClaudeUpstream:
    fields = {"api_key": "sk-ours", "clocks": Clocks(first_token=5.0), **fields}
    return ClaudeUpstream("claude", transport, ManualClock(NOW), base_url=url, **fields)


def streams(*events: dict[str, Any]) -> tuple[int, str, bytes]:
    return 200, "text/event-stream", sse(*events)


async def answer(up: Upstream, request: Request, card: Card = CARD) -> Answer:
    return fold([event async for event in up.stream(request, card)])


@pytest.mark.parametrize("stream", [True, False])
async def test_both_ways_of_asking_give_the_same_answer(transport: Transport, stream: bool) -> None:
    route = streams(begun(), *text(0, "Hel", "lo"), *ended()) if stream else as_json(REPLY)
    fake = Fake({MESSAGES: route})
    async with serving(fake):
        up: Upstream = upstream(fake.url, transport)
        reply = await answer(up, question(stream=stream, seed=1))
    (choice,) = reply.choices
    assert (choice.text, choice.finish) == ("Hello", "stop")
    assert reply.usage is not None and (reply.usage.tokens.prompt, reply.usage.tokens.completion) == (5, 3)
    assert (reply.start.model, reply.start.created, reply.start.ignored) == (NAME, int(NOW), ("seed",))
    assert fake.asked[0].json.get("stream", False) is stream


async def test_our_key_and_the_models_version_go_out_and_nothing_of_the_clients(transport: Transport) -> None:
    fake = Fake({MESSAGES: as_json(REPLY)})
    terms = Terms("req-7", "req-7", trace_parent="00-abc")
    async with serving(fake):
        await answer(upstream(fake.url + "/v1/", transport), question(stream=False, terms=terms))
        old = Card("claude/claude-sonnet-4-6", "claude-sonnet-4-6", "claude", "anthropic", False, frozenset())
        await answer(upstream(fake.url, transport, api_key=None), question(stream=False, temperature=0.2), old)
    first, second = (asked.headers for asked in fake.asked)
    assert (first["x-api-key"], first["anthropic-version"]) == ("sk-ours", "2026-10-21")
    assert (first["x-request-id"], first["traceparent"]) == ("req-7", "00-abc")
    assert "authorization" not in first
    assert second["anthropic-version"] == "2023-06-01" and "x-api-key" not in second
    assert fake.asked[1].json["temperature"] == 0.2


def failed(status: int, kind: str, message: str = "m") -> tuple[int, str, bytes]:
    return as_json({"type": "error", "error": {"type": kind, "message": message}}, status)


@pytest.mark.parametrize(
    ("route", "error"),
    [
        (failed(529, "overloaded_error"), Busy),
        (failed(429, "rate_limit_error"), Throttled),
        (failed(401, "authentication_error"), AccountFault),
        (failed(400, "invalid_request_error", "prompt is too long: 9 tokens > 5 maximum"), ContextLengthExceeded),
        (streams({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}), Busy),
        (streams(begun(), *text(0, "half")), Incomplete),
        ((200, "text/html", b"<html>"), BadReply),
        ((502, "text/html", b"<html>"), GatewayError),
    ],
)
async def test_faults_are_our_errors(transport: Transport, route: Any, error: type[GatewayError]) -> None:
    """An overload inside a 200 is one too, so that another model can still answer."""
    fake = Fake({MESSAGES: route})
    async with serving(fake):
        with pytest.raises(error):
            await answer(upstream(fake.url, transport), question())


async def test_nobody_there(transport: Transport) -> None:
    with pytest.raises(Refused):
        await answer(upstream("http://127.0.0.1:9", transport), question())


async def test_leaving_early_closes_the_connection(transport: Transport) -> None:
    """Whoever leaves must not go on paying for tokens."""
    fake = Fake({})
    gone: list[bool] = []

    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(sse(begun(), *text(0, "a")))
        with contextlib.suppress(ConnectionError):
            while request.transport is not None and not request.transport.is_closing():
                await response.write(sse({"type": "ping"}))
                await asyncio.sleep(0.01)
        gone.append(True)
        return response

    fake.routes[MESSAGES] = drip
    async with serving(fake):
        events = upstream(fake.url, transport).stream(question(), CARD)
        async with contextlib.aclosing(events):
            await anext(events)
            await anext(events)
        for _ in range(200):
            if gone:
                break
            await asyncio.sleep(0.01)
    assert gone


# --- models ---------------------------------------------------------------------------------------------------------


def model(id: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "model", "id": id, "lifecycle": "active", "created_at": "2026-02-03T00:00:00Z", **fields}


@contextlib.asynccontextmanager
async def listed(transport: Transport, *pages: Any) -> AsyncIterator[tuple[ClaudeUpstream, Fake]]:
    """An upstream whose list of models comes in these pages."""
    left = list(pages)

    async def page(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(
            body=orjson.dumps(left.pop(0) if len(left) > 1 else left[0]), content_type="application/json"
        )

    fake = Fake({MODELS: page})
    async with serving(fake):
        yield upstream(fake.url, transport), fake


async def cards(transport: Transport, *pages: Any) -> dict[str, Card]:
    async with listed(transport, *pages) as (up, _):
        return {card.name: card for card in await up.cards()}


async def test_models_become_cards(transport: Transport) -> None:
    said = model(
        "claude-haiku-4-5-20251001",
        max_input_tokens=200_000,
        max_tokens=64_000,
        capabilities={
            "image_input": {"supported": True},
            "pdf_input": {"supported": False},
            "structured_outputs": {"supported": True},
            "effort": {"supported": False},
        },
    )
    found = await cards(transport, {"data": [said], "has_more": False})
    card = found["claude-haiku-4-5-20251001"]
    assert (card.id, card.kind, card.local) == ("claude/claude-haiku-4-5-20251001", "anthropic", False)
    assert (card.context_window, card.max_output, card.complexity) == (200_000, 64_000, (0.0, 0.4))
    assert card.abilities == {
        Ability.CHAT,
        Ability.TOOLS,
        Ability.FORCED_TOOLS,
        Ability.STOP,
        Ability.JSON_OBJECT,
        Ability.JSON_SCHEMA,
        Ability.IMAGES,
        Ability.IMAGE_URLS,
        Ability.PREFILL,
        Ability.REASONING,
    }
    assert card.quirks["rules"] == rules_for("claude-haiku-4-5")
    assert card.created == 1_770_076_800


@pytest.mark.parametrize(
    ("name", "complexity", "forced"),
    [
        ("claude-sonnet-5-5", (0.3, 0.8), False),
        ("claude-haiku-5-5", (0.0, 0.4), True),
        ("claude-opus-5-5", TOP, False),
        ("claude-fable-5", TOP, True),
        ("claude-mythos-5-2", TOP, False),
        ("claude-nova-1", (0.0, 1.0), False),
    ],
)
async def test_models_that_reject_forced_tools_are_routed_around(
    transport: Transport, name: str, complexity: tuple[float, float], forced: bool
) -> None:
    card = (await cards(transport, {"data": [model(name)]}))[name]
    assert (card.complexity, Ability.FORCED_TOOLS in card.abilities) == (complexity, forced)
    assert {Ability.IMAGES, Ability.FILES} <= card.abilities  # what is not denied
    assert card.context_window is None


async def test_the_line_is_believed_over_the_name(transport: Transport) -> None:
    found = await cards(transport, {"data": [model("claude-next", line="haiku"), model("claude-haiku-9", line=3)]})
    assert [card.complexity for card in found.values()] == [(0.0, 0.4), (0.0, 0.4)]


async def test_retired_models_are_left_out(transport: Transport) -> None:
    """Chosen, each would cost an attempt that cannot succeed."""
    data = [
        model("claude-a", lifecycle="retired"),
        model("claude-b", lifecycle="deprecated", retires_at="2026-01-01T00:00:00Z"),
        model("claude-c", lifecycle="deprecated", retires_at="2026-12-31T00:00:00"),
        model("claude-d", retires_at="soon", created_at=None),
        model("claude-e", retires_at=None, created_at="0001-01-01T00:00:00+14:00"),
    ]
    assert list(await cards(transport, {"data": data})) == ["claude-c", "claude-d", "claude-e"]


async def test_the_next_page_is_asked_for_by_the_last_id(transport: Transport) -> None:
    queries: list[dict[str, str]] = []

    async def page(request: web.BaseRequest) -> web.StreamResponse:
        queries.append(dict(request.query))
        more = len(queries) == 1
        return web.json_response({"data": [], "has_more": more, "last_id": "a&b"})

    fake = Fake({MODELS: page})
    async with serving(fake):
        assert await upstream(fake.url, transport).cards() == ()
    assert queries == [{"limit": "1000"}, {"limit": "1000", "after_id": "a&b"}]


async def test_all_pages_are_read(transport: Transport) -> None:
    first = {"data": [model("claude-a")], "has_more": True, "last_id": "claude-a&x"}
    second = {"data": [model("claude-b")], "has_more": False, "last_id": "claude-b"}
    async with listed(transport, first, second) as (up, fake):
        assert [card.name for card in await up.cards()] == ["claude-a", "claude-b"]
        assert [asked.headers["x-api-key"] for asked in fake.asked] == ["sk-ours", "sk-ours"]
        assert fake.asked[0].headers["anthropic-version"] == "2026-10-21"


@pytest.mark.parametrize(("last", "pages"), [("claude-a", 2), (None, 1), (7, 1)])
async def test_a_list_without_an_end_is_left(transport: Transport, last: Any, pages: int) -> None:
    page = {"data": [model("claude-a")], "has_more": True, "last_id": last}
    async with listed(transport, page) as (up, fake):
        assert len(await up.cards()) == 1
        assert len(fake.asked) == pages <= MAX_PAGES


@pytest.mark.parametrize("entry", [None, 3, {}, model(None), model(""), model("a\nb"), model("x" * 513), model(["x"])])
async def test_an_entry_without_a_usable_name_is_passed_over(transport: Transport, entry: Any) -> None:
    assert list(await cards(transport, {"data": [entry, model("claude-a", max_input_tokens="many")]})) == ["claude-a"]


@pytest.mark.parametrize(
    ("route", "error"),
    [
        (as_json({"data": {}}), BadReply),
        (as_json([]), BadReply),
        (failed(401, "authentication_error"), AccountFault),
        (failed(400, "invalid_request_error"), BadReply),
    ],
)
async def test_a_list_that_is_none_is_a_fault(transport: Transport, route: Any, error: type[GatewayError]) -> None:
    fake = Fake({MODELS: route})
    async with serving(fake):
        with pytest.raises(error):
            await upstream(fake.url, transport).cards()


async def test_the_rules_on_the_card_reach_the_wire(transport: Transport) -> None:
    """What the API says of its models wins over what we know of their names."""
    said = model("claude-nova-1", max_tokens=50)
    fake = Fake({MODELS: as_json({"data": [said]}), MESSAGES: as_json(REPLY)})
    async with serving(fake):
        up = upstream(fake.url, transport)
        (card,) = await up.cards()
        await answer(up, question(stream=False), card)
    assert isinstance(card.quirks["rules"], Rules)
    assert fake.asked[-1].json["max_tokens"] == 50


async def test_embeddings_are_refused_and_closing_closes(transport: Transport) -> None:
    up = upstream("http://127.0.0.1:9", transport)
    with pytest.raises(UnsupportedParameter):
        await up.embed(EmbeddingRequest("m", ("a",), Terms("r", "r"), {}), CARD)
    await up.close()
