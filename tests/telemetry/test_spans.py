"""What is posted must be what every collector reads: held against OpenTelemetry's own messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WrittenSpan

from app.core.steps import NANO
from app.telemetry.genai import Span, Value
from app.telemetry.spans import REMEMBERED, Writer, _attribute, _field
from app.telemetry.tracing import Finished
from tests.flows.collecting import Collector, value_of
from tests.telemetry.test_genai import CALLER, TRACE, spans, told


def test_a_collector_reads_what_was_meant() -> None:
    record, steps = told()
    writer = Writer({"service.name": "tierway", "process.pid": 7})
    written = writer.message([writer.write(Finished(record, steps, 2_000 * NANO))] * 20)
    collector = Collector()
    collector.take(written)
    assert collector.resources == [{"service.name": "tierway", "process.pid": 7}]
    root, *parts = collector.spans[:8]
    assert (root.trace_id, root.span_id, root.parent_id) == (TRACE, steps.span_id, CALLER)
    for read, meant in zip((root, *parts), spans(), strict=True):
        assert (read.name, read.kind, read.error) == (meant.name, meant.kind, meant.error)
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in meant.attributes.items()}
        assert read.attributes == lists and read.trace_id == TRACE and read.ended >= read.began
    assert len(collector.spans) == 160
    (resource,) = ExportTraceServiceRequest.FromString(written).resource_spans
    assert resource.scope_spans[0].scope.name == "tierway"


texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    texts,
    st.lists(texts).map(tuple),
)


@given(texts, st.floats(allow_nan=False))
def test_numbers_are_written_whole(name: str, value: float) -> None:
    """They are not remembered, only what stands before them."""
    writer = Writer({})
    for each in (1.5, value):
        written = WrittenSpan.FromString(writer._span(b"", Span("s", 1, "a" * 16, None, 0, 0, {name: each})))
        (attribute,) = written.attributes
        assert (attribute.key, attribute.value.double_value) == (name, each)


@given(texts, values)
def test_any_attribute_is_written_as_it_is(name: str, value: Value) -> None:
    read = KeyValue.FromString(_attribute(name, value))
    expected = list(value) if isinstance(value, tuple) else value
    found = value_of(read.value)
    assert read.key == name and found == expected and type(found) is type(expected)


@given(st.integers(0, 40_000))
def test_sizes_are_written_whole(size: int) -> None:
    data = _field(0x0A, _field(0x0A, b"x" * size))
    assert (
        len(data) > size
        and KeyValue.FromString(data[len(data) - size - (2 if size < 128 else 3 if size < 16_384 else 4) :]).key
        == "x" * size
    )


def test_half_a_character_does_not_lose_the_span() -> None:
    assert KeyValue.FromString(_attribute("name", "a\ud800")).value.string_value == "a?"


def test_what_is_remembered_is_told_apart_and_bounded() -> None:
    """True is 1 to Python, not to whoever reads it; and callers choose names without end."""
    writer, ids = Writer({}), ("a" * 16, None)
    for number in range(REMEMBERED + 10):
        writer._span(b"", Span("s", 1, *ids, 0, 0, {"n": number}))
    assert len(writer._remembered) <= REMEMBERED
    same = [writer._span(b"", Span("s", 1, *ids, 0, 0, {"n": value})) for value in (1, True, 1.0, "1")]
    assert len(set(same)) == 4
