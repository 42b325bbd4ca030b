"""Traces: whoever runs a collector sees each request as a part of its caller's trace, and every attempt in it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.flows.asking import within
from tests.flows.collecting import Collector, Span, collecting
from tests.flows.service import MODELS, Service, over

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER: Final = "00f067aa0ba902b7"
LOCAL, OTHER = MODELS["ollama"], MODELS["openai"]
NOTED: Final = {LOCAL: {"fallback": [OTHER]}}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


@contextlib.asynccontextmanager
async def house(folder: Path) -> AsyncIterator[tuple[Service, httpx2.AsyncClient]]:
    async with over(folder, ("ollama", "openai"), models=NOTED) as service:
        async with httpx2.AsyncClient(base_url=service.url, timeout=20) as http:
            yield service, http


async def ask(
    http: httpx2.AsyncClient, word: str = "Hello", *, model: str = LOCAL, stream: bool = True, **headers: str
) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": word}], "stream": stream}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await http.post("/v1/chat/completions", json=body, headers=named)


def one(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name]
    return found


async def test_a_fallback_is_seen_in_the_callers_trace(tmp_path: Path, collector: Collector) -> None:
    """Who looks for a slow answer must find which model failed, how long each part took, and under what name the
    upstream knows it; and no text of anybody."""
    async with house(tmp_path) as (service, http):
        service.sims["ollama"].fault_next("server_error", 2)  # and the second try there
        reply = await ask(
            http, "canarias", traceparent=f"00-{TRACE}-{CALLER}-01", tracestate="vendor=a1", x_request_id="mine-1"
        )
        assert reply.status_code == 200 and reply.headers["x-tierway-model"] == OTHER, reply.text
        spans = await collector.trace(TRACE)
        root = one(spans, "tierway.request")
        assert (root.parent_id, root.kind, root.error) == (CALLER, 2, None)
        told = root.attributes
        assert (told["tierway.request_id"], told["tierway.model"], told["tierway.attempts"]) == ("mine-1", OTHER, 3)
        assert told["tierway.fallback_from"] == LOCAL and told["http.response.status_code"] == 200

        failed, again, served = [span for span in spans if span.name == "tierway.attempt"]
        assert {span.parent_id for span in spans if span is not root} == {root.span_id}
        assert failed.attributes["gen_ai.provider.name"] == "ollama" and failed.error == failed.attributes["error.type"]
        assert failed.attributes["tierway.blame"] == "upstream" and served.error is None
        assert served.attributes["gen_ai.request.model"] == OTHER.partition("/")[2]
        assert served.attributes["gen_ai.usage.output_tokens"] > 0 and served.kind == 3
        assert served.attributes["gen_ai.response.finish_reasons"] == ["stop"]

        calls = [*service.sims["ollama"].asked, *service.sims["openai"].asked]
        for call, attempt in zip(calls, (failed, again, served), strict=True):
            assert call.headers["traceparent"] == f"00-{TRACE}-{attempt.span_id}-01", (
                "its span is the upstream's parent"
            )
            assert call.headers["tracestate"] == "vendor=a1"

        plan, stream, settle = (one(spans, f"tierway.{name}") for name in ("plan", "stream", "settle"))
        admitted = [span.attributes["tierway.model"] for span in spans if span.name == "tierway.admit"]
        assert admitted == [LOCAL, LOCAL, OTHER]
        moments = [
            root.began,
            plan.began,
            plan.ended,
            failed.began,
            failed.ended,
            again.began,
            served.began,
            stream.began,
        ]
        assert moments == sorted(moments)
        assert stream.ended == root.ended == settle.began <= settle.ended
        (line,) = service.lines()
        assert line["trace_id"] == TRACE and line["request_id"] == "mine-1"
        assert b"canarias" not in collector.raw and b"gen_ai.input.messages" not in collector.raw
        assert collector.resources[0]["service.name"] == "tierway"

        async def counted() -> bool:
            return await service.metric("tierway_traces_total", outcome="sent") == 1

        await within(20, counted, "the trace is counted")


async def test_the_caller_decides_whether_it_is_traced(tmp_path: Path, collector: Collector) -> None:
    """A system that samples one request in a thousand must not get the others from here; its ids go on all the same."""
    async with house(tmp_path) as (service, http):
        await ask(http, traceparent=f"00-{TRACE}-{CALLER}-00")
        own = await ask(http)
        assert own.status_code == 200
        first, second = service.sims["ollama"].asked
        assert first.headers["traceparent"].split("-")[1] == TRACE and first.headers["traceparent"].endswith("-00")
        trace_id = second.headers["traceparent"].split("-")[1]
        spans = await collector.trace(trace_id)
        assert one(spans, "tierway.request").parent_id == "" and second.headers["traceparent"].endswith("-01")
        assert {span.trace_id for span in collector.spans} == {trace_id}
        await within(20, lambda: _lines(service, 2), "both are logged")
        assert {line["trace_id"] for line in service.lines()} == {TRACE, trace_id}


async def _lines(service: Service, count: int) -> bool:
    return len(service.lines()) == count


async def test_what_is_refused_and_what_is_embedded_is_traced_too(tmp_path: Path, collector: Collector) -> None:
    """A caller whose requests are refused looks for them in the same place."""
    async with house(tmp_path) as (service, http):
        refused = await http.post(
            "/v1/chat/completions", content=b"{", headers={"traceparent": f"00-{TRACE}-{CALLER}-01"}
        )
        assert refused.status_code == 400
        root = one(await collector.trace(TRACE), "tierway.request")
        assert root.parent_id == CALLER and root.attributes["error.type"] == "invalid_json" and root.error is None
        (line,) = service.lines()
        assert line["trace_id"] == TRACE
        other = TRACE[::-1]
        body = {"model": "ollama/sim-embed", "input": "canarias"}
        reply = await http.post("/v1/embeddings", json=body, headers={"traceparent": f"00-{other}-{CALLER}-01"})
        assert reply.status_code == 200, reply.text
        attempt = one(await collector.trace(other), "tierway.attempt")
        assert attempt.attributes["gen_ai.operation.name"] == "embeddings" and b"canarias" not in collector.raw


async def test_texts_are_there_only_for_who_asks(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who debugs prompts wants to see them, of keys that allow it, and not without end."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    async with house(tmp_path) as (_, http):
        await ask(http, "canarias " + "x" * 20_000, traceparent=f"00-{TRACE}-{CALLER}-01")
        attempt = one(await collector.trace(TRACE), "tierway.attempt")
        asked, answered = (attempt.attributes[f"gen_ai.{side}.messages"] for side in ("input", "output"))
        assert "canarias" in asked and len(asked) < 10_000
        assert '"role":"assistant"' in answered and '"finish_reason":"stop"' in answered


async def test_a_collector_that_is_away_is_nobodys_trouble(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests go on, the log does not fill, a stop does not wait; and what was lost is counted."""
    collector.status = 503
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    async with house(tmp_path) as (service, http):
        for _ in range(12):
            assert (await ask(http)).status_code == 200

        async def lost() -> bool:
            counts = [await service.metric("tierway_traces_total", outcome=each) for each in ("failed", "dropped")]
            return all(counts)

        await within(20, lost, "failures and drops are counted")
        assert len(service.lines("traces are not taken")) == 1


async def test_what_is_left_is_sent_at_the_end(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last requests before a restart are those one wants to see."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    async with house(tmp_path) as (_, http):
        await ask(http, traceparent=f"00-{TRACE}-{CALLER}-01")
        assert collector.spans == []
    names = [span.name for span in await collector.trace(TRACE)]
    assert "tierway.settle" in names
