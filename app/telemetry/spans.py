"""Writes spans as OTLP's protobuf messages: bytes out, no I/O, no library.

The numbers are those of OpenTelemetry's `trace.proto`, whose fields never change their meaning. What repeats from span
to span is written once and remembered, which makes this several times as cheap as filling in message objects.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final

from app import __version__
from app.telemetry.genai import Span, Value, spans_of
from app.telemetry.tracing import Finished

REMEMBERED: Final = 4_096
REMEMBERED_CHARS: Final = 64
"""So many attributes are remembered, none with a longer text."""
INT64: Final = (1 << 64) - 1
ERROR: Final = b"\x18\x02"
"""A status's code."""
DOUBLE: Final = 9
_times: Final = struct.Struct("<BQBQ").pack
_double: Final = struct.Struct("<Bd").pack


class Writer:
    """`resource` is whom all spans come from."""

    def __init__(self, resource: Mapping[str, Value]) -> None:
        attributes = b"".join(_field(0x0A, _attribute(*each)) for each in resource.items())
        scope = _text(0x0A, "tierway") + _text(0x12, __version__)
        self._resource, self._scope = _field(0x0A, attributes), _field(0x0A, scope)
        self._remembered: dict[tuple[str, type, Value], bytes] = {}
        self._named: dict[tuple[str, int], bytes] = {}
        self._floats: dict[str, bytes] = {}

    def write(self, finished: Finished) -> bytes:
        """All spans of one request."""
        record, steps, settled = finished
        trace_id = _field(0x0A, bytes.fromhex(steps.trace_id))
        return b"".join([_field(0x12, self._span(trace_id, each)) for each in spans_of(record, steps, settled)])

    def message(self, written: Iterable[bytes]) -> bytes:
        """An `ExportTraceServiceRequest` of the spans of these requests."""
        return _field(0x0A, self._resource + _field(0x12, b"".join((self._scope, *written))))

    def _span(self, trace_id: bytes, span: Span) -> bytes:
        ids = trace_id + b"\x12\x08" + bytes.fromhex(span.span_id)
        if span.parent_id is not None:
            ids += b"\x22\x08" + bytes.fromhex(span.parent_id)
        if (named := self._named.get((span.name, span.kind))) is None:
            named = self._named[span.name, span.kind] = _text(0x2A, span.name) + bytes((0x30, span.kind))
        known, parts = self._remembered, [ids, named, _times(0x39, span.began, 0x41, max(span.began, span.ended))]
        for name, value in span.attributes.items():
            kind = type(value)
            if kind is float:
                parts += (self._floats.get(name) or self._float(name), _double(0x21, value))
            else:
                parts.append(known.get((name, kind, value)) or self._new(name, kind, value))
        if span.error is not None:
            parts.append(_field(0x7A, _text(0x12, span.error) + ERROR))
        return b"".join(parts)

    def _new(self, name: str, kind: type, value: Value) -> bytes:
        written = _field(0x4A, _attribute(name, value))
        if type(value) is not str or len(value) <= REMEMBERED_CHARS:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[name, kind, value] = written
        return written

    def _float(self, name: str) -> bytes:
        """All of such an attribute but the nine bytes of its number."""
        written = self._floats[name] = _field(0x4A, _attribute(name, 0.0))[:-DOUBLE]
        return written


def _attribute(name: str, value: Value) -> bytes:
    return _text(0x0A, name) + _field(0x12, _any(value))


def _any(value: Value) -> bytes:
    match value:
        case bool():
            return bytes((0x10, value))
        case int():
            return b"\x18" + _varint(value & INT64)
        case float():
            return _double(0x21, value)
        case str():
            return _text(0x0A, value)
        case _:
            return _field(0x2A, b"".join(_field(0x0A, _any(each)) for each in value))


def _text(tag: int, text: str) -> bytes:
    return _field(tag, text.encode(errors="replace"))


def _field(tag: int, data: bytes) -> bytes:
    size = len(data)
    return bytes((tag, size)) + data if size < 0x80 else bytes((tag,)) + _varint(size) + data


def _varint(number: int) -> bytes:
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
