"""Sending: which requests are traced, and what becomes of traces when the collector is slow, away, or angry."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from app.telemetry.otlp import QUIET_SECONDS, UNTOLD, OtlpSender, _Seldom
from app.telemetry.spans import Writer
from app.telemetry.traceparent import Trace
from app.telemetry.tracing import Finished
from tests.flows.collecting import Collector, collecting
from tests.flows.service import logged
from tests.telemetry.test_genai import CALLER, TRACE, told

SAMPLED, UNSAMPLED = Trace(TRACE, CALLER, sampled=True), Trace(TRACE, CALLER)


def counted(counts: Counter[str], outcome: str, times: int = 1) -> None:
    """Waits until the sender's thread has said so: no event loop runs in these tests."""
    until = time.monotonic() + 30
    while counts[outcome] < times:
        assert time.monotonic() < until
        time.sleep(0.01)  # the sender is a thread, and nothing can be awaited here


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        yield collector


def finished() -> Finished:
    record, steps = told()
    return Finished(record, steps, 0)


@pytest.mark.parametrize(
    ("sampler", "sampled", "unsampled", "alone"),
    [("", True, False, True), ("always_on", True, True, True), ("parentbased_always_off", True, False, False)],
)
def test_the_samplers_are_opentelemetrys(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, sampler: str, sampled: bool, unsampled: bool, alone: bool
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler or "parentbased_always_on")
    sender = OtlpSender({}, lambda outcome, count: None)
    assert [sender.sample(TRACE, parent) for parent in (SAMPLED, UNSAMPLED, None)] == [sampled, unsampled, alone]
    sender.close()


def test_headers_and_names_are_those_of_the_environment(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector of others wants a key, and shows services by their names."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=abc")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    counts = Counter[str]()
    sender = OtlpSender({}, lambda outcome, count: counts.update({outcome: count}))
    sender.offer(finished())
    sender.close()
    (resource,) = collector.resources
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("edge", "test")
    assert collector.headers[0]["x-collector-key"] == "abc" and counts == {"sent": 1}


def test_a_collector_that_is_away_costs_no_memory_and_no_patience(collector: Collector) -> None:
    collector.status = 503
    counts = Counter[str]()
    environ = {"OTEL_BSP_MAX_QUEUE_SIZE": "3", "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    with logged() as log:
        sender = OtlpSender(environ, lambda outcome, count: counts.update({outcome: count}))
        for _ in range(10):
            sender.offer(finished())
        assert counts == {"dropped": 7}
        sender.close()
        sender.offer(finished())
    assert counts["dropped"] + counts["failed"] == 11 and counts["sent"] == 0
    assert log.getvalue().count(b"traces are not taken") == 1


def test_a_collector_that_does_not_stop_talking_is_left(collector: Collector) -> None:
    """What it says would be kept for as long as it says it, and unpacked: a megabyte becomes a gigabyte."""
    collector.talks = True
    counts = Counter[str]()
    sender = OtlpSender({"OTEL_BSP_SCHEDULE_DELAY": "20"}, lambda outcome, count: counts.update({outcome: count}))
    for sent in (1, 2):
        sender.offer(finished())
        counted(counts, "sent", sent)
    sender.close()


def test_one_connection_serves_for_all(collector: Collector) -> None:
    counts = Counter[str]()
    environ = {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1", "OTEL_BSP_SCHEDULE_DELAY": "20"}
    sender = OtlpSender(environ, lambda outcome, count: counts.update({outcome: count}))
    for _ in range(3):
        sender.offer(finished())
    sender.close()
    assert counts == {"sent": 3} and len(collector.connections) == 1


def test_full_batches_do_not_wait(collector: Collector) -> None:
    counts = Counter[str]()
    environ = {
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "6",
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
        "OTEL_BSP_MAX_QUEUE_SIZE": "x",
    }
    sender = OtlpSender(environ, lambda outcome, count: counts.update({outcome: count}))
    sender.offer(finished())
    counted(counts, "sent")
    sender.close()


def test_a_batch_that_fails_oddly_is_counted_and_the_next_is_sent(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the thread must not end all traces."""
    counts, messages = Counter[str](), iter((None, b""))

    def message(writer: Writer, written: Iterable[bytes]) -> bytes:
        if next(messages) is None:
            raise OverflowError("odd")
        return b""

    monkeypatch.setattr(Writer, "message", message)
    environ = {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1", "OTEL_BSP_SCHEDULE_DELAY": "20"}
    with logged() as log:
        sender = OtlpSender(environ, lambda outcome, count: counts.update({outcome: count}))
        for outcome in ("failed", "sent"):
            sender.offer(finished())
            counted(counts, outcome)
        sender.close()
    assert b"a fault of the gateway" in log.getvalue()


def test_the_sdk_is_heard_once_a_minute_and_never_quotes_headers() -> None:
    """A header that cannot be read is often a key without its name."""
    heard: list[str] = []
    seldom = _Seldom(heard.append)
    seldom.listen()
    try:
        logging.getLogger(UNTOLD).warning("Header format invalid! %s", "the-secret")
        logging.getLogger("opentelemetry.exporter").error("Failed: %s", "refused")
        seldom._last -= QUIET_SECONDS + 1
        logging.getLogger("opentelemetry.exporter").error("Failed: %s", "refused")
    finally:
        seldom.leave()
    assert heard == ["its headers cannot be read", "Failed: refused"]
    assert logging.getLogger("opentelemetry").propagate
