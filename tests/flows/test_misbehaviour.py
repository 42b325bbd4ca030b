"""Whatever an upstream does wrong, through the whole gateway: a clean answer from another model, or the right error.

Every fault the simulator knows happens on each wire, streamed and not: once to a model asked for by name that has
nobody to stand in for it, and once to one with a healthy stand-in. Each (fault, way) has a model of its own, so that
health and throttling of one case do not touch another. All of it happens at once, in one gateway; the tests look at
what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import httpx2
import openai
import orjson
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.faults import CATALOGUE
from app.simulator.server import simulate
from tests.flows.service import KINDS, MODELS, Service, gateway, upstream

WAYS = ("stream", "json")
SAID = "Tell me sim:tokens=12"
ANSWER = "You said: Tell me sim:tokens=12"
CALLS = 'call weather({"city": "Paris"}) and call time'
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "time"}},
]
HASTY = {"first_token": 2.0, "cold_start": 2.0, "idle": 2.0, "total": 4.0}
HANGING = frozenset({"hang", "hang_first", "pings", "stall"})
HOW: Final[dict[str, dict[str, Any]]] = {"slow_drip": {"size": 64, "seconds": 0.001}, "huge_line": {"size": 100_000}}
AT_ONCE = 48

# --- what a client sees of each fault -------------------------------------------------------------------------------

ANSWERED = "answered"  # whole and right
CALLED = "called"  # both tools, once each, with the arguments the model gave
ODD = "odd"  # whole, with what the model really said, however odd
SHORT = "cut at a limit"  # and the finish reason says so
CALLER = "400 invalid_value"
LARGE = "413 request_too_large"
CONTEXT = "400 context_length_exceeded"
THROTTLED = "429 upstream_rate_limited"
FAILED = "502 upstream_failed"
BUSY = "503 overloaded"
LATE = "504 upstream_timeout"
BROKE = "broke: upstream_failed"  # an error event after some content
STALLED = "broke: upstream_timeout"


class Seen(NamedTuple):
    """`other`: where a wire differs, by the kind's name; the same two again."""

    stream: str
    json: str
    other: Mapping[str, tuple[str, str]] = MappingProxyType({})


def both(seen: str, **other: tuple[str, str]) -> Seen:
    return Seen(seen, seen, other)


ALONE: Final[dict[str, Seen]] = {
    "hang_up": both(FAILED),
    "reset": both(FAILED),
    "bad_request": both(CALLER),
    "context": both(CONTEXT),
    "spend_limit": both(FAILED),
    "unauthorized": both(FAILED),
    "billing": both(FAILED),
    "forbidden": both(FAILED),
    "not_found": both(FAILED),
    "too_large": both(LARGE),
    "unprocessable": both(CALLER),
    "throttled": both(THROTTLED),
    "throttled_silent": both(THROTTLED),
    "server_error": both(FAILED),
    "text_error": both(FAILED),
    "empty_error": both(FAILED),
    "html_error": both(FAILED),
    "unavailable": both(BUSY),
    "gateway_timeout": both(LATE),
    "overloaded": both(BUSY),
    "redirect": both(FAILED),
    "html": both(FAILED),
    "empty": both(FAILED),
    "wrong_type": both(FAILED),
    "json_for_stream": both(ANSWERED),
    "stream_for_json": both(ANSWERED),
    "gzip": both(ANSWERED),
    "hang": both(LATE),
    "slow_head": both(ANSWERED),
    "hang_first": both(LATE),
    "pings": both(LATE),
    "stall": Seen(STALLED, LATE),
    "slow_drip": both(ANSWERED),
    "cut": Seen(BROKE, FAILED),
    "cut_reset": Seen(BROKE, FAILED),
    "cut_clean": Seen(BROKE, FAILED),
    # Ollama's JSON replies say `done` beside the reason; old releases know no reason at all.
    "no_finish": Seen(BROKE, FAILED, {"ollama": (BROKE, ANSWERED)}),
    "no_done": Seen(ANSWERED, ANSWERED, {"anthropic": (BROKE, ANSWERED), "ollama": (BROKE, ANSWERED)}),
    "after_done": both(ANSWERED),
    "error_first": both(FAILED),
    "overloaded_first": both(BUSY, ollama=(FAILED, FAILED)),  # Ollama's errors are words without a type
    "error_mid": Seen(BROKE, FAILED),
    "error_string": Seen(BROKE, FAILED),
    "garbage": Seen(BROKE, FAILED),
    "not_utf8": Seen(BROKE, FAILED),
    "not_object": Seen(BROKE, FAILED),
    "deep": Seen(BROKE, FAILED),
    "huge_line": both(ODD),  # within bounds; see below for one beyond
    "crlf": both(ANSWERED),
    "wrong_types": Seen(BROKE, FAILED),
    "no_usage": both(ANSWERED),
    "dropped_prompt": both(ANSWERED),  # too short a prompt to tell; see test_windows
    "cut_short": both(SHORT),
    "empty_arguments": both(CALLED),
    "bad_arguments": both(CALLED),
    "duplicate_index": both(CALLED),
    "no_index": both(CALLED, anthropic=(FAILED, CALLED)),
    "high_index": both(CALLED),
    "no_call_id": both(CALLED),
    "control_text": both(ODD),
}
"""A sick upstream that nobody stands in for."""
BEFORE_CONTENT = (CONTEXT, THROTTLED, FAILED, BUSY, LATE)
"""What a stand-in makes good. What the caller did wrong, no other model is asked about."""
CLASS_OF = {400: openai.BadRequestError, 413: openai.APIStatusError, 429: openai.RateLimitError}


def expected(fault: str, way: str, kind: str) -> str:
    seen = ALONE[fault]
    return seen.other.get(kind, (seen.stream, seen.json))[WAYS.index(way)]


def model_of(kind: str, backed: bool, fault: str, way: str) -> str:
    name = f"{kind}-{'backed' if backed else 'alone'}{'-hasty' if fault in HANGING else ''}"
    return f"{name}/{fault}-{way}"


CASES = [(fault, way) for fault in ALONE for way in WAYS]

# --- the gateway ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def sick(folder: Path) -> AsyncIterator[Service]:
    """Each kind of server, sick, as upstreams with and without stand-ins, some with short clocks; and a well one."""
    models = Behaviour(tuple(SimModel(f"{fault}-{way}") for fault in ALONE for way in WAYS))
    async with contextlib.AsyncExitStack() as stack:
        well = await stack.enter_async_context(simulate("openai"))
        upstreams, notes, sims = {"well": upstream(well)}, {}, {"well": well}
        for kind in KINDS:
            sim = sims[kind] = await stack.enter_async_context(simulate(kind, models))
            for fault, way in CASES:
                sim.fault_always(fault, model=f"{fault}-{way}", **HOW.get(fault, {}))
                notes[model_of(kind, True, fault, way)] = {"fallback": ["well/sim-plain"]}
            for backed in ("alone", "backed"):
                upstreams[f"{kind}-{backed}"] = upstream(sim)
                upstreams[f"{kind}-{backed}-hasty"] = upstream(sim, timeouts=HASTY)
        environ = {"ANTHROPIC_API_KEY": "k"}
        yield await stack.enter_async_context(gateway(folder, upstreams, sims, environ=environ, models=notes))


Key = tuple[str, bool, str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def found(tmp_path_factory: pytest.TempPathFactory) -> dict[Key, Outcome]:
    """What came of every case, by kind, whether there is a stand-in, fault and way."""
    async with sick(Path(tmp_path_factory.mktemp("sick"))) as service:
        gate, client = asyncio.Semaphore(AT_ONCE), service.openai(timeout=15)

        async def one(key: Key) -> Outcome:
            async with gate:
                return await outcome(client, model_of(*key), *key[2:])

        keys = [(kind, backed, *case) for case in CASES for kind in KINDS for backed in (False, True)]
        return dict(zip(keys, await asyncio.gather(*map(one, keys)), strict=True))


class Outcome(NamedTuple):
    seen: str
    text: str
    headers: Any


async def outcome(client: AsyncOpenAI, model: str, fault: str, way: str) -> Outcome:
    """What the official client makes of it."""
    tools = ALONE[fault].json == CALLED
    options: Any = {"tools": TOOLS} if tools else {}
    messages: Any = [{"role": "user", "content": CALLS if tools else SAID}]
    try:
        if way == "json":
            raw = await client.chat.completions.with_raw_response.create(model=model, messages=messages, **options)
            completion = raw.parse()
            choice = completion.choices[0]
            functions = [call.function for call in choice.message.tool_calls or [] if call.type == "function"]
            calls = [(function.name, function.arguments) for function in functions]
            return _whole(choice.message.content or "", choice.finish_reason, calls, raw.headers)
        raw_stream = await client.chat.completions.with_raw_response.create(
            model=model, messages=messages, stream=True, **options
        )
    except openai.APIStatusError as error:
        assert type(error) is CLASS_OF.get(error.status_code, openai.InternalServerError), error
        return Outcome(f"{error.status_code} {error.code}", error.message, error.response.headers)
    return await _streamed(raw_stream)


async def _streamed(raw: Any) -> Outcome:
    text, finish = "", None
    calls: dict[int, list[str]] = {}
    try:
        async for chunk in raw.parse():
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
                for piece in choice.delta.tool_calls or []:
                    call = calls.setdefault(piece.index, ["", ""])
                    call[0] += piece.function.name or ""
                    call[1] += piece.function.arguments or ""
    except openai.APIError as error:
        assert finish is None, "an answer that broke must not look whole"
        return Outcome(f"broke: {error.code}", text, raw.headers)
    return _whole(text, finish, [(name, arguments) for name, arguments in calls.values()], raw.headers)


def _whole(text: str, finish: str | None, calls: list[tuple[str, str]], headers: Any) -> Outcome:
    if finish == "length":
        return Outcome(SHORT, text, headers)
    if finish == "tool_calls":
        right = [name for name, _ in calls] == ["weather", "time"] and all(arguments for _, arguments in calls)
        return Outcome(CALLED if right else f"wrong calls: {calls}", text, headers)
    if ANSWER in text and finish == "stop":
        return Outcome(ANSWERED, text, headers)
    return Outcome(ODD if finish == "stop" and text else f"ended {finish}: {text[:80]}", text, headers)


each_kind = pytest.mark.parametrize("kind", KINDS)
in_loop = pytest.mark.asyncio(loop_scope="module")


def test_every_fault_is_looked_at() -> None:
    """A fault that the simulator learns must be decided on here."""
    assert set(ALONE) | {"refuse"} == set(CATALOGUE)


@in_loop
@each_kind
async def test_alone(found: dict[Key, Outcome], kind: str) -> None:
    """Whatever the only upstream does, the client gets the right error or the right answer: never a hang, a stack
    trace, a 401 that is not about its own key, or half an answer that looks whole."""
    for fault, way in CASES:
        one = found[kind, False, fault, way]
        assert one.seen == expected(fault, way, kind), (fault, way, one.text)
        assert "Traceback" not in one.text and "127.0.0.1" not in one.text, (fault, way)
        if one.seen == THROTTLED:
            assert one.headers["retry-after"] == ("7" if fault == "throttled" else "5"), (fault, way)


@in_loop
@each_kind
async def test_with_a_stand_in(found: dict[Key, Outcome], kind: str) -> None:
    """As long as nothing of an answer went out, another model answers, whole, and the headers say so; after that,
    nobody else's words are mixed in."""
    for fault, way in CASES:
        one, alone, model = found[kind, True, fault, way], expected(fault, way, kind), model_of(kind, True, fault, way)
        headers = [one.headers.get(f"x-tierway-{name}") for name in ("model", "fallback")]
        if alone in BEFORE_CONTENT:
            assert one.seen == (CALLED if ALONE[fault].json == CALLED else ANSWERED), (fault, way, one.text)
            assert headers == ["well/sim-plain", model], (fault, way)
            assert int(one.headers["x-tierway-attempts"]) >= 2, (fault, way)
        else:
            assert one.seen == alone, (fault, way, one.text)
            assert headers in ([model, None], [None, None]) and "[simulated plain]" not in one.text, (fault, way)


BROKEN = ("cut", "cut_reset", "cut_clean", "no_finish", "error_mid", "garbage", "stall", "huge_line")


@in_loop
async def test_a_broken_stream_ends_with_its_error(tmp_path: Path) -> None:
    """On the wire: the error is the last event, there is no `[DONE]`, the body ends in good order, and even a line of
    10 MB (which would fill the memory of every gateway) only breaks its own answer."""
    async with contextlib.AsyncExitStack() as stack:
        sims = {kind: await stack.enter_async_context(simulate(kind)) for kind in KINDS}
        upstreams = {kind: upstream(sim, timeouts=HASTY) for kind, sim in sims.items()}
        environ = {"ANTHROPIC_API_KEY": "k"}
        service = await stack.enter_async_context(gateway(tmp_path, upstreams, sims, environ=environ))
        client = await stack.enter_async_context(httpx2.AsyncClient(base_url=f"{service.url}/v1", timeout=15))
        for fault in BROKEN:
            for kind, sim in sims.items():
                sim.fault_next(fault)
                body = {"model": MODELS[kind], "messages": [{"role": "user", "content": SAID}], "stream": True}
                reply = await client.post("/chat/completions", json=body)
                events = [line for line in reply.text.split("\n\n") if line]
                last = orjson.loads(events[-1].removeprefix("data: "))
                assert reply.status_code == 200 and set(last) == {"error"}, (fault, kind)
                assert set(last["error"]) == {"message", "type", "param", "code"}, (fault, kind)
                assert "[DONE]" not in reply.text and '"finish_reason":"' not in reply.text, (fault, kind)
        failed = await service.metric("tierway_streams_total", outcome="failed")
        assert failed == len(BROKEN) * len(KINDS)


@in_loop
@pytest.mark.parametrize("streamed", [True, False])
async def test_auto_goes_on_to_who_is_well(tmp_path: Path, streamed: bool) -> None:
    """One server refuses and one hangs: `auto` finds the third. Then one is throttled; from then on the third is asked
    at once."""
    async with contextlib.AsyncExitStack() as stack:
        sims = {kind: await stack.enter_async_context(simulate(kind)) for kind in ("ollama", "vllm", "openai")}
        upstreams = {kind: upstream(sim, timeouts=HASTY) for kind, sim in sims.items()}
        service = await stack.enter_async_context(gateway(tmp_path, upstreams, sims))
        sims["ollama"].refuse()
        sims["ollama"].drop_connections()
        create = service.openai().chat.completions.with_raw_response.create
        messages: Any = [{"role": "user", "content": SAID}]
        for attempts, fault in ((3, "hang"), (2, "throttled"), (1, "throttled")):
            sims["vllm"].fault_next(fault)
            raw: Any = await create(model="auto", messages=messages, stream=streamed)
            text = (await _streamed(raw)).text if streamed else raw.parse().choices[0].message.content
            assert ANSWER in text
            assert raw.headers["x-tierway-attempts"] == str(attempts)
        assert await service.metric("tierway_breaker_state", upstream="ollama") == 2


@in_loop
async def test_all_refuse(tmp_path: Path) -> None:
    """Nothing listens any more: the client is told within a moment, and told what was tried, without an address."""
    async with contextlib.AsyncExitStack() as stack:
        sims = {kind: await stack.enter_async_context(simulate(kind)) for kind in KINDS}
        upstreams = {kind: upstream(sim) for kind, sim in sims.items()}
        environ = {"ANTHROPIC_API_KEY": "k"}
        service = await stack.enter_async_context(gateway(tmp_path, upstreams, sims, environ=environ))
        client = service.openai()
        for sim in sims.values():
            sim.refuse()
            sim.drop_connections()
        for model in (*MODELS.values(), "auto"):
            for streamed in (True, False):
                with pytest.raises(openai.InternalServerError) as caught:
                    await client.chat.completions.create(
                        model=model, messages=[{"role": "user", "content": SAID}], stream=streamed
                    )
                assert (caught.value.status_code, caught.value.code) == (502, "upstream_failed")
                assert "refused" in caught.value.message and "127.0.0.1" not in caught.value.message


EMBEDDING_ERRORS = {"invalid_value", "request_too_large", "context_length_exceeded", "overloaded"} | {
    f"upstream_{word}" for word in ("failed", "timeout", "rate_limited")
}


@in_loop
@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_embeddings(tmp_path: Path, kind: str) -> None:
    """Every fault while texts are embedded: one vector per text, or an error that is not ours. A wrong vector would
    poison an index for good."""
    models = tuple(SimModel(f"embed-{fault}", dimensions=16, abilities=frozenset()) for fault in (*ALONE, "none"))
    async with simulate(kind, Behaviour(models)) as sim, simulate("openai") as other:
        for fault in ALONE:
            sim.fault_always(fault, model=f"embed-{fault}", **HOW.get(fault, {}))
        upstreams = {"sick": upstream(sim, timeouts=HASTY), "other": upstream(other)}
        async with gateway(tmp_path, upstreams, {}) as service:
            client = service.openai(timeout=15)

            async def ask(fault: str) -> list[list[float]] | str | None:
                try:
                    reply = await client.embeddings.create(model=f"sick/embed-{fault}", input=["one", "two words"])
                    return [entry.embedding for entry in reply.data]
                except openai.APIStatusError as error:
                    assert error.status_code not in (401, 403, 404, 500), fault
                    return error.code

            well = await ask("none")
            assert isinstance(well, list) and len(well) == 2
            for fault, got in zip(ALONE, await asyncio.gather(*map(ask, ALONE)), strict=True):
                assert got == well or got in EMBEDDING_ERRORS, fault
