"""Whether requests are traced, which of them, and what becomes of the notes of one that is over.

OpenTelemetry's own variables say so. Its SDK is an extra and slow to import, so `open_tracing` imports it only where
traces are on; everything else here knows it by the three functions of a `Sender`.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from app.core.clock import Clock
from app.core.record import Record
from app.core.steps import Steps
from app.telemetry.logs import get_logger
from app.telemetry.traceparent import Trace, read_traceparent, trace_of

CONTENT_CHARS: Final = 8_192
"""Of what was asked, and of what was answered, in a trace that holds texts."""
CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CAPTURES: Final = ("true", "1", "span_only", "span_and_event")
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL: Final = "http/protobuf"
WHY_MAX: Final = 200
INSTALL: Final = (
    "pip install 'tierway[otel]', or make extras; an image needs the build argument LOCK=requirements-extras.lock"
)

log = get_logger("traces")

Told = Callable[[str, int], None]
"""Counts traces by what became of them: sent, failed or dropped."""


class Finished(NamedTuple):
    """A request that is over. `settled`: nanoseconds since 1970."""

    record: Record
    steps: Steps
    settled: int


class Sender(Protocol):
    """Sends traces to a collector, in a thread of its own."""

    def sample(self, trace_id: str, parent: Trace | None) -> bool:
        """Whether a request is to be traced. `parent` is the caller's place in the trace, where it named one."""
        ...

    def offer(self, finished: Finished) -> None:
        """Never waits."""
        ...

    def close(self) -> None:
        """Sends what is left, for a few seconds at most."""
        ...


class Tracing:
    """For as long as the process serves. `content`: so many characters of texts, none by default."""

    def __init__(self, sender: Sender, clock: Clock, content: int = 0) -> None:
        self._sender = sender
        self._clock = clock
        self.content = content
        self._unpaid: dict[Steps, Record] = {}

    def begin(self, header: str | None) -> tuple[str, Steps | None]:
        """Our place in the trace that a `traceparent` header names, or in a new one; and notes, if it is traced."""
        parent = read_traceparent(header)
        place = trace_of(None) if parent is None else parent.child()
        if not self._sender.sample(place.trace_id, parent):
            return Trace(place.trace_id, place.span_id).header, None
        steps = Steps(place.trace_id, None if parent is None else parent.span_id, self._clock, self.content)
        return steps.header, steps

    def observe(self, record: Record) -> None:
        """Reads every finished request."""
        if (steps := record.steps) is None:
            return
        if steps.owing:
            self._unpaid[steps] = record
        else:
            self._offer(record, steps)

    def paid(self, steps: Steps) -> None:
        """What the request owed is paid, which ends it where its record was told before."""
        steps.owing = False
        if (record := self._unpaid.pop(steps, None)) is not None:
            self._offer(record, steps)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._sender.close)

    def _offer(self, record: Record, steps: Steps) -> None:
        self._sender.offer(Finished(record, steps, steps.at(self._clock.monotonic())))


def open_tracing(environ: Mapping[str, str], clock: Clock, told: Told) -> Tracing | None:
    """None where traces are off, or cannot be sent, which is logged and keeps nobody from being served."""
    if not wanted(environ):
        return None
    if (protocol := _first(environ, PROTOCOLS) or PROTOCOL) != PROTOCOL:
        log.warning("traces are off", why=f"they are sent as {PROTOCOL} only, and {protocol[:40]} is asked for")
        return None
    try:
        sender: Sender = importlib.import_module("app.telemetry.otlp").OtlpSender(environ, told)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        log.warning("traces are off", why=f"OpenTelemetry is not installed; {INSTALL}")
        return None
    except (OSError, ValueError, RuntimeError, ImportError) as error:  # what its variables say cannot be
        log.warning("traces are off", why=f"{type(error).__name__}: {error}"[:WHY_MAX])
        return None
    captures = environ.get(CAPTURE, "").strip().lower() in CAPTURES
    return Tracing(sender, clock, CONTENT_CHARS if captures else 0)


def wanted(environ: Mapping[str, str]) -> bool:
    """As OpenTelemetry says it, except that nothing is sent to a default address that nobody named."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = [each.strip().lower() for each in environ.get("OTEL_TRACES_EXPORTER", "").split(",") if each.strip()]
    if exporters and "otlp" not in exporters:
        if exporters != ["none"]:
            log.warning("traces are off", why="OTEL_TRACES_EXPORTER must be otlp or none")
        return False
    return bool(exporters) or _first(environ, ENDPOINTS) is not None


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := environ.get(name, "").strip().lower())), None)
