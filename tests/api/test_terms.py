"""Without these a header with a bad value is obeyed in part or ignored, and nobody hears of it."""

from __future__ import annotations

from typing import Any

import pytest

from app.api.terms import read_terms
from app.core.caller import ANONYMOUS, Caller
from app.core.errors import InvalidValue
from app.core.request import Terms
from tests.api.wire import Wire

TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def terms(headers: dict[str, str], caller: Caller = ANONYMOUS) -> Terms:
    return read_terms(Wire(headers=headers).inbound(), caller)


async def test_without_headers_the_defaults_hold() -> None:
    read = terms({"x-request-id": "mine"})
    assert (read.request_id, read.root_id, read.depth, read.parent_id) == ("mine", "mine", 0, None)
    assert read.deadline is None, "the upstreams' own clocks rule where the caller names no time"
    assert (read.session, read.max_cost_nano, read.arm) == (None, None, None)
    assert (read.strategy, read.agent, read.priority, read.local_only, read.ignored) == (
        None,
        None,
        "interactive",
        False,
        (),
    )


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        *[("x-tierway-strategy", each, "strategy", each) for each in ("cost", "quality", "privacy", "adaptive")],
        ("x-tierway-strategy", " cost ", "strategy", "cost"),
        *[("x-tierway-priority", each, "priority", each) for each in ("interactive", "batch")],
        ("x-tierway-agent", "qe-coverage", "agent", "qe-coverage"),
        ("x-tierway-agent", "é" * 256, "agent", "é" * 256),
        ("x-tierway-session", "s-1", "session", "s-1"),
        ("x-tierway-context", "truncate", "truncate", True),
        ("x-tierway-resumable", "true", "resumable", True),
        ("x-tierway-resumable", "false", "resumable", False),
        ("x-tierway-context", "error", "truncate", False),
        ("x-tierway-session-max-cost", "0.5", "session_max_cost_nano", 500_000_000),
        ("x-tierway-max-cost", "0.05", "max_cost_nano", 50_000_000),
        ("x-tierway-max-cost", "0", "max_cost_nano", 0),
        ("x-tierway-max-cost", " 1e-3 ", "max_cost_nano", 1_000_000),
        ("x-tierway-max-cost", "0.1234567899", "max_cost_nano", 123_456_789),
        ("x-tierway-max-cost", "1000000", "max_cost_nano", 10**15),
    ],
)
async def test_what_a_header_says_counts(name: str, value: str, field: str, expected: Any) -> None:
    assert getattr(terms({name: value}), field) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("x-tierway-strategy", each) for each in ("", "Cost", "auto", "cost,quality")],
        *[("x-tierway-priority", each) for each in ("", "high", "BATCH")],
        *[("x-tierway-agent", each) for each in ("", " ", "x" * 257, "a\x07b", "a\x1b[2Jb")],
        *[("x-tierway-session", each) for each in ("", "x" * 257, "a\x07b")],
        *[("x-tierway-context", each) for each in ("", "cut", "Truncate")],
        *[("x-tierway-resumable", each) for each in ("", "yes", "True")],
        ("x-tierway-session-max-cost", "-1"),
        *[
            ("x-tierway-max-cost", each)
            for each in ("", "-1", "nan", "inf", "1000001", "1e999999999", "a", "$1", "1,5")
        ],
        *[("x-tierway-timeout", each) for each in ("", "0", "-1", "nan", "inf", "1e99", "86401", "soon", "5s", "0x5")],
    ],
)
async def test_a_bad_value_is_refused_and_named(name: str, value: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        terms({name: value})
    assert caught.value.param == name and name in caught.value.message


@pytest.mark.parametrize(("value", "seconds"), [("5", 5), ("0.5", 0.5), ("86400", 86_400), (" 7 ", 7)])
async def test_the_timeout_counts_from_the_first_byte(value: str, seconds: float) -> None:
    inbound = Wire(headers={"x-tierway-timeout": value}).inbound()
    assert read_terms(inbound, ANONYMOUS).deadline == inbound.started + seconds


async def test_what_has_no_effect_is_named() -> None:
    """Who misspells a limit on money, or any other header, must learn that nobody read it."""
    headers = {"x-tierway-sesion-max-cost": "1", "x-tierway-cache": "off", "x-tierway-stratgy": "quality"}
    assert set(terms(headers).ignored) == set(headers)
    assert terms({"x-tierway-agent": "a", "x-unheard-of": "1"}).ignored == ()
    heeded = {"x-tierway-session": "s", "x-tierway-max-cost": "1", "x-tierway-priority": "batch"}
    assert terms(heeded).ignored == ()


async def test_a_stream_that_cannot_be_resumed_says_so_unless_it_is_heeded_later() -> None:
    """Whether it is, only who makes the stream knows."""
    assert terms({"x-tierway-resumable": "true"}).ignored == ("x-tierway-resumable",)
    assert terms({"x-tierway-resumable": "false"}).ignored == () and terms({}).resumable is None


@pytest.mark.parametrize(
    ("caller", "ignored"),
    [
        (ANONYMOUS, ()),
        (Caller(store_content="off"), ("idempotency-key",)),
        (Caller(retention_days=0), ("idempotency-key",)),
    ],
)
async def test_who_may_have_nothing_stored_learns_that_no_answer_is_kept(caller: Caller, ignored: Any) -> None:
    assert terms({"idempotency-key": "k"}, caller).ignored == ignored


async def test_a_new_session_has_a_name_of_its_own() -> None:
    """Else all who ask for a new one would share the session of that name."""
    names = {terms({"x-tierway-session": "new"}).session for _ in range(3)}
    assert len(names) == 3 and all(name is not None and name.startswith("sess_") for name in names)


async def test_the_key_says_what_the_request_does_not() -> None:
    key = Caller(priority="batch", privacy="local")
    assert terms({}, key).priority == "batch" and terms({}, key).local_only
    assert terms({"x-tierway-priority": "interactive"}, key).priority == "batch", "a request may not loosen its key"


async def test_a_trace_goes_on_and_a_broken_one_begins_anew() -> None:
    """The caller finds our part in its own trace; a broken header is to be ignored, says the standard."""
    went_on = terms({"traceparent": TRACE}).trace_parent
    assert went_on is not None and went_on.split("-")[1] == TRACE.split("-")[1] and went_on != TRACE
    for header in ({}, {"traceparent": "00-bad"}):
        fresh = terms(header).trace_parent
        assert fresh is not None and fresh.split("-")[1] != TRACE.split("-")[1]
