"""W3C trace headers: a trace that breaks at the gateway is no trace."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.traceparent import Trace, read_traceparent, read_tracestate, trace_of

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE_ID}-{SPAN_ID}-01"


def test_a_good_header_is_read() -> None:
    assert read_traceparent(GOOD) == Trace(TRACE_ID, SPAN_ID, sampled=True)
    assert read_traceparent(f" {GOOD[:-2]}00 ") == Trace(TRACE_ID, SPAN_ID, sampled=False)


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """The standard wants it so, for a tracer newer than we are."""
    assert read_traceparent(f"01{GOOD[2:]}-what-comes-later") == Trace(TRACE_ID, SPAN_ID, sampled=True)
    assert read_traceparent(f"cc{GOOD[2:]}") == Trace(TRACE_ID, SPAN_ID, sampled=True)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "x",
        GOOD.upper(),
        GOOD[:-1],
        f"{GOOD}-more",
        f"{GOOD}0",
        f"ff{GOOD[2:]}",
        f"01{GOOD[2:]}more",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0g",
        f"01{GOOD[2:]}-{'x' * 600}",
        "٠٠" + GOOD[2:],
    ],
)
def test_a_bad_header_is_ignored_and_a_new_trace_begun(header: str | None) -> None:
    assert read_traceparent(header) is None
    begun = trace_of(header)
    assert TRACE_ID not in begun.header
    assert read_traceparent(begun.header) == begun


def test_our_step_and_the_upstreams_belong_to_the_callers_trace() -> None:
    ours = trace_of(GOOD)
    theirs = ours.child()
    assert ours.trace_id == theirs.trace_id == TRACE_ID
    assert len({SPAN_ID, ours.span_id, theirs.span_id}) == 3
    assert theirs.sampled
    assert read_traceparent(theirs.header) == theirs


def test_ids_are_never_all_zeros() -> None:
    """Such an id means that there is none; every tracer would drop the span."""
    begun = trace_of(None, random=bytes)
    assert begun == Trace("0" * 31 + "1", "0" * 15 + "1")
    assert read_traceparent(begun.header) == begun


@given(st.binary(min_size=24, max_size=24))
def test_ids_are_the_random_bytes(data: bytes) -> None:
    begun = trace_of(None, random=lambda size: data[:size])
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", begun.header)
    assert not any(data[:16]) or begun.trace_id == data[:16].hex()
    assert not any(data[16:]) or begun.span_id == data[16:].hex()


@given(st.text())
def test_any_header_is_read_or_ignored(header: str) -> None:
    found = read_traceparent(header)
    assert found is None or read_traceparent(found.header) == found


@pytest.mark.parametrize(
    ("header", "read"),
    [
        ("vendor=a1", "vendor=a1"),
        (" rojo=00f067aa0ba902b7 , congo=t61rcWkgMzE,", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("fw529a3039@dt=FfAj", "fw529a3039@dt=FfAj"),
        (None, None),
        ("canarias", None),
        ("Upper=case", None),
        ("a=two words", None),
        ("a=b=c", None),
        (",", None),
        (f"a=tw-{'x' * 40}", None),
        ("a=" + "x" * 600, None),
        (",".join(f"k{n}=v" for n in range(33)), None),
    ],
)
def test_the_words_of_other_tracers_go_on_where_they_are_valid(header: str | None, read: str | None) -> None:
    """They find their own spans by it; what is not of the standard's shape may be anything."""
    assert read_tracestate(header, GOOD) == read
    assert read_tracestate(header, None) is None, "of no trace"
