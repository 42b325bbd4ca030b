"""Sends traces by OTLP over HTTP: OpenTelemetry's SDK says where to, as whom, and which of them.

It is imported only where traces are on. Spans are written once a request is over, as OTLP has them: that costs less
than to keep its record for a thread, and a fraction of the SDK's own spans. A thread posts them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from app import __version__
from app.core.clock import SystemClock
from app.telemetry.genai import REQUEST, Value
from app.telemetry.logs import get_logger
from app.telemetry.spans import Writer
from app.telemetry.traceparent import Trace
from app.telemetry.tracing import Finished, Told

SPANS_EACH: Final = 6
"""About so many spans make a request."""
FLUSH_SECONDS: Final = 5.0
FLUSH_FAILING_SECONDS: Final = 0.5
"""What a stop waits for a collector that did not take the last ones."""
QUIET_SECONDS: Final = 60.0
"""Between two log lines about a collector."""
REPLY_BYTES: Final = 65_536
"""So much of an answer is read at most; nothing in it matters but its status."""
CREDENTIALS: Final = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
)
UNTOLD: Final = "opentelemetry.util.re"
"""Quotes the headers it cannot read, which may be secrets."""

log = get_logger("traces")


class OtlpSender:
    """Satisfies `Sender`. What the collector is too slow for is dropped and counted; nobody waits."""

    def __init__(self, environ: Mapping[str, str], told: Told) -> None:
        self._hears = _Seldom(lambda why: log.warning("traces are not taken", why=why))
        self._hears.listen()
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        session = None if any(map(environ.get, CREDENTIALS)) else _Session()  # a provider of credentials has its own
        self._exporter = _Exporter(session=session)
        self._writer = Writer(_resource())
        self._told = told
        self._room = _number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2_048)
        self._batch = max(1, _number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 2_048) // SPANS_EACH)
        self._delay = _number(environ, "OTEL_BSP_SCHEDULE_DELAY", 5_000) / 1_000
        self._queue = deque[bytes]()
        self._awake, self._closing, self._failing = threading.Event(), False, False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def sample(self, trace_id: str, parent: Trace | None) -> bool:
        context = None
        if parent is not None:
            place = SpanContext(int(trace_id, 16), int(parent.span_id, 16), True, TraceFlags(parent.sampled))
            context = set_span_in_context(NonRecordingSpan(place))
        chosen = self._sampler.should_sample(context, int(trace_id, 16), REQUEST, SpanKind.SERVER)
        return chosen.decision is Decision.RECORD_AND_SAMPLE

    def offer(self, finished: Finished) -> None:
        if len(self._queue) >= self._room or self._closing:
            self._told("dropped", 1)
            return
        self._queue.append(self._writer.write(finished))
        if len(self._queue) == self._batch:
            self._awake.set()

    def close(self) -> None:
        self._closing = True
        self._awake.set()
        self._thread.join(FLUSH_FAILING_SECONDS if self._failing else FLUSH_SECONDS)
        self._exporter.end()
        self._thread.join(FLUSH_FAILING_SECONDS)
        if self._queue:
            self._told("dropped", len(self._queue))
        self._hears.leave()

    def _run(self) -> None:
        while not self._closing:
            self._awake.wait(self._delay)
            self._awake.clear()
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while self._queue and not (self._closing and self._failing):
            taken = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
            try:
                self._failing = not self._exporter.send(self._writer.message(taken))
            except Exception as error:  # one batch must not end the thread
                self._failing = True
                log.error("a fault of the gateway", where="traces", exc_info=error)
            self._told("failed" if self._failing else "sent", len(taken))


class _Session(requests.Session):
    """Leaves a collector that says more than it has to: its answer would be kept, unpacked, as long as it lasts."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        with super().request(*args, **{**kwargs, "stream": True}) as reply:
            reply.raw.read(REPLY_BYTES, decode_content=False)  # whole, it leaves the connection to the next
            return reply


class _Exporter(OTLPSpanExporter):
    """Takes what is written already; where to, by which headers, for how long and how often is the SDK's."""

    def send(self, data: bytes) -> bool:
        return self._client.export(data).success

    def end(self) -> None:
        """Also ends a wait for the collector."""
        self.shutdown()  # type: ignore[no-untyped-call]  # the SDK says no types here


class _Seldom(logging.Handler):
    """Hears what the SDK has to say about a collector, and passes on one word a minute."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        self._clock = SystemClock()
        self._last = float("-inf")

    def listen(self) -> None:
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(self)
        logger.propagate = False

    def leave(self) -> None:
        logger = logging.getLogger("opentelemetry")
        logger.removeHandler(self)
        logger.propagate = not logger.handlers

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock.monotonic()
        if now >= self._last + QUIET_SECONDS:
            self._last = now
            self._tell("its headers cannot be read" if record.name == UNTOLD else record.getMessage()[:200])


def _resource() -> dict[str, Value]:
    """Who we are, as `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` have it, which go first."""
    own: dict[str, Value] = {
        "service.name": "tierway",
        "service.version": __version__,
        "process.pid": os.getpid(),  # workers share everything else
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
    }
    said = OTELResourceDetector().detect().attributes
    return own | {name: str(value) for name, value in said.items()}


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0 else default
