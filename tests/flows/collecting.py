"""A collector of traces: a real socket that takes OTLP over HTTP, and what its messages say in Python's own types."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from app.telemetry.otlp import REPLY_BYTES
from tests.flows.asking import clock


@dataclass(slots=True)
class Span:
    """One that came. `error` is the description of a failed one."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    attributes: dict[str, Any]
    error: str | None


@dataclass(slots=True)
class Collector:
    """`resources` are those the spans came of; `raw` is all that was posted; `status` what is answered, `talks`
    that the answer has no end. `connections` are the ports of those who came."""

    url: str = ""
    status: int = 200
    talks: bool = False
    connections: set[int] = field(default_factory=set)
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: bytes = b""

    def take(self, body: bytes) -> None:
        message = ExportTraceServiceRequest.FromString(body)
        self.raw += body
        for resource in message.resource_spans:
            self.resources.append({each.key: value_of(each.value) for each in resource.resource.attributes})
            self.spans += [_read(span) for scope in resource.scope_spans for span in scope.spans]

    async def trace(self, trace_id: str, seconds: float = 20) -> list[Span]:
        """All spans of a trace, once its request is among them."""
        begun = clock.monotonic()
        while not any(span.trace_id == trace_id and span.name == "tierway.request" for span in self.spans):
            assert clock.monotonic() < begun + seconds, f"no trace {trace_id}: {[each.name for each in self.spans]}"
            await asyncio.sleep(0.02)
        return [span for span in self.spans if span.trace_id == trace_id]


def value_of(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(each) for each in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def _read(span: Any) -> Span:
    return Span(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        {each.key: value_of(each.value) for each in span.attributes},
        span.status.message if span.status.code == 2 else None,
    )


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Taking(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            if collector.status == 200 and self.path == "/v1/traces":
                collector.take(body)
            collector.connections.add(self.client_address[1])
            self.send_response(collector.status)
            if not collector.talks:
                self.send_header("content-length", "0")
            self.end_headers()
            with contextlib.suppress(OSError):
                if collector.talks:
                    self.wfile.write(bytes(REPLY_BYTES + 1))
                    self.rfile.read(1)

        def log_message(self, *_: Any) -> None:
            """Nobody wants to read it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Taking) as server:
        server.daemon_threads = True
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
