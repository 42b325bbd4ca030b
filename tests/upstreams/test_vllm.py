"""A pool of vLLM servers over real HTTP, with the misbehaviour of real ones: dead, asleep, busy, or half gone."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from aiohttp import web

from app.core.card import Card
from app.core.errors import (
    AccountFault,
    Broken,
    ContextLengthExceeded,
    GatewayError,
    Refused,
    Rejected,
    ServerFault,
    TimedOut,
    UpstreamFault,
)
from app.core.events import Answer, fold
from app.core.request import Request
from app.core.upstream import Upstream
from app.upstreams.http import Clocks, Transport
from app.upstreams.openai_models import EMBEDS
from app.upstreams.vllm import CHATS, QUIRKS, VllmUpstream
from tests.upstreams.web import Answer as WebAnswer
from tests.upstreams.web import Fake, as_json, as_stream, chunk, question, serving, texts, usage, vectors

CHAT, EMBED, MODELS = "POST /v1/chat/completions", "POST /v1/embeddings", "GET /v1/models"
HEALTH, METRICS, SLEEPING = "GET /health", "GET /metrics", "GET /is_sleeping"
CARD = Card("gpu/m", "m", "gpu", "vllm", True, CHATS, quirks=QUIRKS)
HELLO = as_stream(chunk({"content": "Hello"}, "stop"), usage())
NOBODY = "http://127.0.0.1:1"
Routes = dict[str, tuple[int, str, bytes] | WebAnswer]


def metrics(waiting: float = 0, awake: int | None = 1) -> tuple[int, str, bytes]:
    lines = [
        "# HELP vllm:num_requests_waiting Number of requests waiting.",
        "# TYPE vllm:num_requests_waiting gauge",
        f'vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}',
        'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 999.0',
    ]
    if awake is not None:
        lines.append(f'vllm:engine_sleep_state{{engine="0",model_name="m",sleep_state="awake"}} {awake}')
        lines.append(f'vllm:engine_sleep_state{{engine="0",model_name="m",sleep_state="discard_all"}} {1 - awake}')
    return 200, "text/plain", "\n".join([*lines, ""]).encode()


def listed(*models: dict[str, Any] | str) -> tuple[int, str, bytes]:
    return as_json({"object": "list", "data": [{"id": m} if isinstance(m, str) else m for m in models]})


def replica(**routes: tuple[int, str, bytes]) -> Fake:
    """A healthy server for chat, but for what is said otherwise."""
    healthy: Routes = {
        CHAT: HELLO,
        MODELS: listed("m"),
        HEALTH: (200, "text/plain", b""),
        METRICS: metrics(),
    }
    names = {"chat": CHAT, "models": MODELS, "health": HEALTH, "metrics": METRICS, "sleeping": SLEEPING}
    return Fake({**healthy, **{names[name]: route for name, route in routes.items()}})


def pool_of(transport: Transport, *urls: str, clocks: Clocks | None = None) -> VllmUpstream:
    clocks = clocks or Clocks(first_token=5.0)
    return VllmUpstream("gpu", base_urls=urls, api_key="sk-gpu", local=True, clocks=clocks, transport=transport)


async def answer(up: Upstream, request: Request | None = None, card: Card = CARD) -> Answer:
    return fold([event async for event in up.stream(request or question(), card)])


def asked(fake: Fake, route: str) -> int:
    return sum(f"{one.method} {one.path}" == route for one in fake.asked)


def away(up: VllmUpstream) -> list[bool]:
    return [one.away for one in up.pool.replicas]


# --- requests -------------------------------------------------------------------------------------------------------


async def test_requests_are_spread_over_the_replicas(transport: Transport) -> None:
    first, second = replica(), replica()
    async with serving(first, second):
        up = pool_of(transport, first.url, second.url)
        for _ in range(4):
            assert (await answer(up)).choices[0].text == "Hello"
    assert (asked(first, CHAT), asked(second, CHAT)) == (2, 2)
    assert [one.in_flight for one in up.pool.replicas] == [0, 0]


async def test_a_replica_counts_as_in_flight_until_its_stream_ends(transport: Transport) -> None:
    first, second = replica(), replica()
    async with serving(first, second):
        up = pool_of(transport, first.url, second.url)
        async with contextlib.aclosing(up.stream(question(), CARD)) as held:
            await anext(held)
            for _ in range(3):
                await answer(up)
            assert (asked(first, CHAT), asked(second, CHAT)) == (1, 3)
        assert [one.in_flight for one in up.pool.replicas] == [0, 0]


async def test_a_refused_connection_moves_on_at_once_and_is_remembered(transport: Transport) -> None:
    """One machine that is down must cost no request, and open no breaker for the others."""
    living = replica()
    async with serving(living):
        up = pool_of(transport, NOBODY, living.url)
        for _ in range(2):
            assert (await answer(up)).choices[0].text == "Hello"
        assert away(up) == [True, False]


async def test_when_nobody_is_there_it_is_refused(transport: Transport) -> None:
    up = pool_of(transport, NOBODY, "http://127.0.0.1:2")
    for _ in range(2):  # and still tried the next time
        with pytest.raises(Refused):
            await answer(up)
    assert away(up) == [True, True]


async def test_a_request_that_was_sent_is_not_sent_again(transport: Transport) -> None:
    """Whether it may be repeated is the retry loop's to know, with the money in view."""

    async def break_off(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    first, second = replica(), replica()
    first.routes[CHAT] = break_off
    async with serving(first, second):
        with pytest.raises(Broken):
            await answer(pool_of(transport, first.url, second.url))
    assert asked(second, CHAT) == 0


async def test_request_ids_never_come_twice(transport: Transport) -> None:
    """vLLM takes the id for its own request; the same again breaks the first."""
    fake = replica()
    async with serving(fake):
        up = pool_of(transport, fake.url)
        for _ in range(2):
            await answer(up, question(request_id="mine"))
    ids = [one.headers["x-request-id"] for one in fake.asked]
    assert all(one.startswith("r1-") for one in ids)
    assert len(set(ids)) == 2
    assert "request_id" not in fake.asked[0].json
    assert fake.asked[0].headers["authorization"] == "Bearer sk-gpu"


async def test_reasoning_is_read_under_vllms_name_and_sent_back_under_it(transport: Transport) -> None:
    fake = replica(chat=as_stream(chunk({"reasoning": "hmm"}), chunk({"content": "yes"}, "stop"), usage()))
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "because"},
        {"role": "user", "content": "c"},
    ]
    async with serving(fake):
        reply = await answer(pool_of(transport, fake.url), question(messages=history))
    assert (reply.choices[0].reasoning, reply.choices[0].text) == ("hmm", "yes")
    assert fake.asked[0].json["messages"][1] == {"role": "assistant", "content": "b", "reasoning": "because"}


async def test_an_early_finish_reason_loses_no_text(transport: Transport) -> None:
    """vLLM puts it on the chunk of the last text."""
    fake = replica(chat=as_stream(chunk({"content": "a"}), chunk({"content": "b"}, "length"), usage()))
    async with serving(fake):
        reply = await answer(pool_of(transport, fake.url))
    assert (reply.choices[0].text, reply.choices[0].finish) == ("ab", "length")


@pytest.mark.parametrize(
    ("code", "kind", "fault"),
    [(500, "InternalServerError", ServerFault), (400, "BadRequestError", Rejected)],
)
async def test_an_error_in_the_stream_is_an_error_although_done_follows(
    transport: Transport, code: int, kind: str, fault: type[GatewayError]
) -> None:
    """Else a broken answer would look whole."""
    error = {"error": {"message": "EngineCore encountered an issue", "type": kind, "param": None, "code": code}}
    fake = replica(chat=as_stream(chunk({"content": "half"}), error))
    async with serving(fake):
        with pytest.raises(fault):
            await answer(pool_of(transport, fake.url))


async def test_a_context_overflow_is_told_apart(transport: Transport) -> None:
    """Only then a model with a larger window helps."""
    message = "This model's maximum context length is 512 tokens. However, your prompt contains at least 513."
    error = {"message": message, "type": "BadRequestError", "param": "input_tokens", "code": 400}
    fake = replica(chat=as_json({"error": error}, 400))
    async with serving(fake):
        with pytest.raises(ContextLengthExceeded):
            await answer(pool_of(transport, fake.url))


async def test_embeddings_go_to_a_replica_that_is_there(transport: Transport) -> None:
    fake = replica()
    fake.routes[EMBED] = vectors(1)
    async with serving(fake):
        up = pool_of(transport, NOBODY, fake.url)
        reply = await up.embed(texts("a"), CARD)
    assert len(reply.vectors) == 1
    assert fake.asked[0].headers["x-request-id"].startswith("r1-")
    assert [one.in_flight for one in up.pool.replicas] == [0, 0]


# --- models ---------------------------------------------------------------------------------------------------------


async def test_models_become_cards(transport: Transport) -> None:
    base = {"id": "tiny", "root": "Qwen/Qwen3-0.6B", "parent": None, "max_model_len": 512, "created": 5}
    adapter = {"id": "mine", "root": "/adapters/mine", "parent": "tiny", "owned_by": "vllm"}
    fake = replica(models=listed(base, adapter))
    async with serving(fake):
        tiny, mine = await pool_of(transport, fake.url).cards()
    assert (tiny.id, tiny.kind, tiny.local, tiny.created) == ("gpu/tiny", "vllm", True, 5)
    assert (tiny.context_window, tiny.parameters, tiny.complexity) == (512, 600_000_000, (0.0, 0.4))
    assert (tiny.abilities, tiny.parent, tiny.price) == (CHATS, None, None)
    assert (mine.id, mine.parent, mine.owned_by) == ("gpu/mine", "gpu/tiny", "vllm")
    assert (mine.context_window, mine.parameters) == (512, 600_000_000)


@pytest.mark.parametrize(
    ("routes", "embeds"),
    [([CHAT], []), ([EMBED], ["m", "embed-m"]), ([CHAT, EMBED], ["embed-m"]), ([], [])],
    ids=["chat", "embeddings", "an old release with both", "neither"],
)
async def test_what_a_server_is_for_is_told_by_its_endpoints(
    transport: Transport, routes: list[str], embeds: list[str]
) -> None:
    """A question sent to an embedding model fails, and the other way round."""
    fake = Fake({MODELS: listed("m", "embed-m"), **dict.fromkeys(routes, HELLO)})
    async with serving(fake):
        cards = await pool_of(transport, fake.url).cards()
    assert [card.name for card in cards if card.abilities == EMBEDS] == embeds
    assert [card.name for card in cards if card.abilities == CHATS] == [
        name for name in ("m", "embed-m") if name not in embeds
    ]


async def test_the_models_of_all_replicas_are_listed_with_the_smallest_window(transport: Transport) -> None:
    first = replica(models=listed({"id": "m", "max_model_len": 100}, "only-here"))
    second = replica(models=listed({"id": "m", "max_model_len": 50}))
    async with serving(first, second):
        cards = await pool_of(transport, first.url, second.url).cards()
    assert {card.name: card.context_window for card in cards} == {"m": 50, "only-here": None}


async def test_a_model_is_asked_for_where_it_is(transport: Transport) -> None:
    """An adapter may be loaded on one replica alone; the others answer 404."""
    first, second = replica(models=listed("m")), replica(models=listed("m", "mine"))
    async with serving(first, second):
        up = pool_of(transport, first.url, second.url)
        mine = next(card for card in await up.cards() if card.name == "mine")
        for _ in range(3):
            await answer(up, card=mine)
    assert (asked(first, CHAT), asked(second, CHAT)) == (0, 3)


async def test_a_replica_that_does_not_answer_is_away_and_its_models_stay(transport: Transport) -> None:
    first, second = replica(models=listed("m")), replica(models=listed("m", "mine"))
    async with serving(first):
        async with serving(second):
            up = pool_of(transport, first.url, second.url)
            before = await up.cards()
        after = await up.cards()
    assert away(up) == [False, True]
    assert {card.name for card in after} == {card.name for card in before} == {"m", "mine"}


@pytest.mark.parametrize(
    ("urls", "route", "fault", "gone"),
    [
        ([NOBODY], None, Refused, [True]),
        ([], (401, "application/json", b"{}"), AccountFault, [False]),
        ([NOBODY], (401, "application/json", b"{}"), AccountFault, [True, False]),
    ],
    ids=["nobody", "refusing us", "nobody and refusing us"],
)
async def test_when_no_replica_lists_models_it_is_a_fault(
    transport: Transport,
    urls: list[str],
    route: tuple[int, str, bytes] | None,
    fault: type[UpstreamFault],
    gone: list[bool],
) -> None:
    fake = Fake({MODELS: route} if route is not None else {})
    async with serving(fake):
        up = pool_of(transport, *urls, *([fake.url] if route is not None else []))
        with pytest.raises(fault):
            await up.cards()
        assert away(up) == gone


# --- probes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routes", "gone"),
    [
        ({}, False),
        ({"health": (503, "text/plain", b"")}, True),
        ({"metrics": metrics(awake=0)}, True),
        ({"metrics": metrics(awake=None), "sleeping": as_json({"is_sleeping": True})}, True),
        ({"metrics": metrics(awake=None), "sleeping": as_json({"is_sleeping": False})}, False),
        ({"metrics": metrics(awake=None)}, False),
        ({"metrics": (404, "text/plain", b""), "health": (404, "text/plain", b"")}, False),
        ({"metrics": (200, "text/plain", b"\xff\x00 nonsense\n")}, False),
    ],
    ids="well dead asleep-by-metric asleep-by-endpoint awake-by-endpoint unsaid bare nonsense".split(),
)
async def test_a_probe_tells_who_is_fit_to_be_asked(
    transport: Transport, routes: dict[str, tuple[int, str, bytes]], gone: bool
) -> None:
    """A sleeping engine is healthy by its own words, and lets requests wait for ever."""
    fake = replica(**routes)
    async with serving(fake):
        up = pool_of(transport, fake.url)
        up.pool.mark(fake.url, away=not gone)
        await up.probe()
        assert away(up) == [gone]


async def test_a_probe_notices_who_is_not_there_and_who_is_back(transport: Transport) -> None:
    fake = replica()
    async with serving(fake):
        up = pool_of(transport, fake.url, NOBODY)
        await up.probe()
        assert away(up) == [False, True]
    await up.probe()
    assert away(up) == [True, True]
    await up.close()


async def test_queues_decide_between_replicas(transport: Transport) -> None:
    """Other gateways send requests there too; only the server knows its queue."""
    first, second = replica(metrics=metrics(waiting=7)), replica(metrics=metrics(waiting=2))
    async with serving(first, second):
        up = pool_of(transport, first.url, second.url)
        await up.probe()
        assert [one.queue_depth for one in up.pool.replicas] == [7, 2]
        for _ in range(3):
            await answer(up)
    assert (asked(first, CHAT), asked(second, CHAT)) == (0, 3)


async def test_a_sleeping_replica_gets_no_requests(transport: Transport) -> None:
    first, second = replica(metrics=metrics(awake=0)), replica()
    async with serving(first, second):
        up = pool_of(transport, first.url, second.url)
        await up.probe()
        for _ in range(3):
            await answer(up)
    assert (asked(first, CHAT), asked(second, CHAT)) == (0, 3)


async def test_watching_goes_on_until_it_is_cancelled(transport: Transport) -> None:
    """Were it to end with the first machine that fails, none would ever be noticed again."""
    fake = replica()
    up = pool_of(transport, NOBODY)
    async with serving(fake):
        up = pool_of(transport, NOBODY, fake.url)
        watching = asyncio.create_task(up.watch(every=0.01))
        async with asyncio.timeout(5):
            while asked(fake, HEALTH) < 3:
                await asyncio.sleep(0.01)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching


async def test_a_hanging_replica_is_away(transport: Transport) -> None:
    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    fake = replica()
    fake.routes[HEALTH] = fake.routes[MODELS] = hang
    async with serving(fake):
        up = pool_of(transport, fake.url, clocks=Clocks(total=0.05))
        await up.probe()
        assert away(up) == [True]
        up.pool.mark(fake.url, away=False)
        with pytest.raises(TimedOut):
            await up.cards()
        assert away(up) == [True]
