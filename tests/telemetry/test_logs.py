"""Log lines: what operators search, what must never be in them, and that logging never breaks what it tells of."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from select import PIPE_BUF
from typing import Any

import orjson
import pytest
import structlog

from app.core.clock import ManualClock
from app.core.money import Tokens
from app.core.record import Attempt, Record
from app.telemetry.logs import TEXT_MAX, configure, get_logger, log_request, request_event, set_level

FIELDS = (
    "request_id trace_id tenant key_id agent session endpoint model_requested model upstream tier score task_type "
    "strategy reason attempts stream status error_code tokens_in tokens_out cost_usd first_token_seconds seconds "
    "overhead_seconds quality flags config_version parent_request_id"
).split()
"""The contract's fields of a request's line, beside timestamp, level and event."""

RECORD = Record(
    request_id="req-1",
    parent_id="req-0",
    root_id="req-0",
    depth=1,
    endpoint="chat.completions",
    model_requested="auto",
    stream=True,
    status=200,
    started_at=1_700_000_000.0,
    seconds=1.23456789,
    overhead_seconds=0.0004,
    key_id="key-1",
    model="ollama/rnj-1",
    upstream="ollama",
    attempts=(Attempt("ollama/rnj-1", "ollama", "ok", None, 1.0000001),),
    tokens=Tokens(10, 20),
    cost_nano=1_500,
    trace_id="t",
    flags={"STREAMING": True},
)


@pytest.fixture(autouse=True)
def logging_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Out(io.BytesIO):
    """A stream that remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> int:
        self.writes.append(bytes(data))
        return len(data)

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.writes]


@pytest.fixture
def out() -> Out:
    stream = Out()
    configure("info", "json", stream, ManualClock(1_700_000_000.25))
    return stream


def test_a_request_is_one_line_with_the_contracts_fields(out: Out) -> None:
    """Whoever searches the logs by these names must find every request exactly once."""
    log_request(RECORD, {"config_version": 3})
    (line,) = out.lines()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert set(line) == {"timestamp", "level", "event", *FIELDS}
    assert (line["timestamp"], line["level"], line["event"]) == ("2023-11-14T22:13:20.250Z", "info", "request")
    assert (line["tokens_in"], line["tokens_out"], line["cost_usd"]) == (10, 20, 1.5e-06)
    assert (line["parent_request_id"], line["trace_id"], line["config_version"]) == ("req-0", "t", 3)
    assert line["attempts"] == [{"model": "ollama/rnj-1", "outcome": "ok", "blame": None, "seconds": 1.0}]
    assert (line["seconds"], line["flags"], line["quality"]) == (1.234568, {"STREAMING": True}, None)


def test_each_line_has_the_time_at_which_it_was_written() -> None:
    stream, clock = Out(), ManualClock(0.0)
    configure("info", "json", stream, clock)
    for seconds in (0.0, 0.5, 0.4995, 3_599.25):
        get_logger().info("tick")
        clock.advance(seconds)
    get_logger().info("tick")
    times = [line["timestamp"].removeprefix("1970-01-01T") for line in stream.lines()]
    assert times == ["00:00:00.000Z", "00:00:00.000Z", "00:00:00.500Z", "00:00:00.999Z", "01:00:00.249Z"]


def test_a_line_is_one_write(out: Out) -> None:
    """Workers share a pipe: a line in two writes ends up inside another worker's."""
    log_request(replace(RECORD, reason="r" * 50_000), {})
    assert len(out.writes) == 1
    assert out.writes[0].endswith(b"\n")


async def test_the_lines_of_one_turn_are_written_together_whole_and_in_order(out: Out) -> None:
    """A call of the system for each costs more than the line. What a pipe would tear is not put together."""
    for number in range(20):
        log_request(replace(RECORD, request_id=f"req-{number}"), {})
    get_logger("gpu").warning("state")
    log_request(replace(RECORD, request_id="last"), {})
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 1 < len(out.writes) < 12
    assert all(len(written) <= PIPE_BUF and written.endswith(b"\n") for written in out.writes)
    lines = [orjson.loads(line) for line in b"".join(out.writes).splitlines()]
    assert [line.get("request_id", "state") for line in lines] == [*(f"req-{n}" for n in range(20)), "state", "last"]


def test_lines_of_a_loop_that_has_ended_are_not_lost(out: Out) -> None:
    async def ask(number: int) -> None:
        log_request(replace(RECORD, request_id=f"req-{number}"), {})

    for number in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(ask(number))
        loop.close()
    logging.shutdown([weakref.ref(handler) for handler in logging.getLogger().handlers])  # as at the process's end
    lines = [orjson.loads(line) for line in b"".join(out.writes).splitlines()]
    assert [line["request_id"] for line in lines] == ["req-0", "req-1", "req-2"]


def test_only_listed_fields_are_logged() -> None:
    """A prompt or a key must not reach the logs by way of a field somebody adds."""
    event = request_event(RECORD, {"prompt": "secret", "authorization": "Bearer sk", "seconds": 9, "quality": 0.5})
    assert set(event) == set(FIELDS)
    assert (event["quality"], event["seconds"]) == (0.5, 1.234568)


def test_unknown_tokens_and_cost_are_null_and_not_zero() -> None:
    event = request_event(replace(RECORD, tokens=None, cost_nano=None), {})
    assert (event["tokens_in"], event["tokens_out"], event["cost_usd"]) == (None, None, None)


def test_text_a_caller_chose_is_cut() -> None:
    """A model name of 20 MB must not become a log line of 20 MB."""
    event = request_event(replace(RECORD, model_requested="m" * 10_000), {})
    assert event["model_requested"] == "m" * TEXT_MAX + "…"


@pytest.mark.parametrize(
    ("changed", "level"),
    [
        (RECORD, "info"),
        (replace(RECORD, status=404, error_code="model_not_found"), "info"),
        (replace(RECORD, status=499, error_code="client_gone"), "info"),
        (replace(RECORD, error_code="upstream_failed"), "warning"),
        (replace(RECORD, status=502, error_code="upstream_failed"), "error"),
    ],
)
def test_the_level_says_whose_trouble_it_is(out: Out, changed: Record, level: str) -> None:
    """Alerts count errors: a caller's typo is none, a stream that broke must not hide behind its status 200."""
    log_request(changed, {})
    assert out.lines()[0]["level"] == level


def test_other_lines_say_which_component_speaks(out: Out) -> None:
    get_logger("upstreams").warning("upstream state", upstream="gpu", state="open")
    (line,) = out.lines()
    assert line == {
        "timestamp": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "event": "upstream state",
        "component": "upstreams",
        "upstream": "gpu",
        "state": "open",
    }


def test_libraries_log_in_the_same_form(out: Out) -> None:
    """A crash that uvicorn reports as free text is lost to whoever searches JSON."""
    logging.getLogger("uvicorn.error").warning("started %s", "it")
    logging.getLogger("aiohttp.client").info("said %d", 3)
    first, second = out.lines()
    assert (first["event"], first["level"], first["component"]) == ("started it", "warning", "uvicorn.error")
    assert (second["event"], second["level"]) == ("said 3", "info")


def test_access_logs_of_libraries_are_off(out: Out) -> None:
    logging.getLogger("uvicorn.access").info("GET / 200")
    assert out.writes == []


def test_no_field_takes_the_place_of_what_every_line_has(out: Out) -> None:
    """A `level` of something else would make a warning look like none, and a search by time miss it."""
    get_logger("x").warning("moved", level="80%", timestamp="never")
    line = out.lines()[0]
    assert (line["level"], line["event"]) == ("warning", "moved") and line["timestamp"].startswith("2023-")


def test_the_level_changes_while_running(out: Out) -> None:
    """Whoever hunts a fault in production cannot restart first; loggers made before must follow."""
    log, library = get_logger(), logging.getLogger("aiohttp.client")
    log.debug("no")
    library.debug("no")
    set_level("debug")
    log.debug("yes")
    library.debug("yes too")
    set_level("error")
    log.warning("no")
    library.warning("no")
    assert [line["event"] for line in out.lines()] == ["yes", "yes too"]


def raise_and_catch() -> ZeroDivisionError:
    try:
        1 / 0  # noqa: B018 - it is the error that is wanted
    except ZeroDivisionError as error:
        return error
    raise AssertionError


def test_an_exception_brings_its_traceback(out: Out) -> None:
    error = raise_and_catch()
    try:
        raise error
    except ZeroDivisionError:
        get_logger().exception("from structlog")
        logging.getLogger("uvicorn.error").exception("from the stdlib")
    get_logger().error("handed in", exc_info=error)
    get_logger().error("none at hand", exc_info=True)
    lines = out.lines()
    assert all("raise_and_catch" in line["exception"] for line in lines[:3])
    assert lines[3]["exception"] is None
    assert not any("exc_info" in line for line in lines)


@pytest.mark.parametrize("value", ["\ud800", 2**70, {3: 4}, object(), ValueError("x"), {1, 2}])
def test_a_value_json_cannot_hold_is_still_logged(out: Out, value: Any) -> None:
    get_logger().info("odd", value=value)
    assert out.lines()[0]["event"].strip("'") == "odd"
    assert "value" in out.lines()[0]


def test_a_library_line_whose_arguments_do_not_fit_is_still_logged() -> None:
    out = Out()
    configure("info", "json", out)
    logging.getLogger("aiohttp.client").warning("one %s two %s", "only")
    assert out.lines()[0]["event"] == "one %s two %s"


def test_a_broken_stream_loses_the_line_and_nothing_else() -> None:
    """A log collector that died must not take the gateway's answers with it."""

    class Broken(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    configure("info", "json", Broken())
    log_request(RECORD, {})
    closed = io.BytesIO()
    configure("info", "json", closed)
    closed.close()
    get_logger().info("nobody hears")


def test_the_console_shows_people_what_is_there() -> None:
    stream = Out()
    configure("info", "console", stream, ManualClock(1_700_000_000.25))
    log_request(RECORD, {})
    text = stream.writes[0].decode()
    assert text.startswith("2023-11-14T22:13:20.250Z [info     ] request")
    assert "model=ollama/rnj-1" in text
    assert "tenant" not in text
    assert len(stream.writes) == 1


def test_the_console_shows_only_the_flags_that_are_off() -> None:
    """All of them, with each request, would fill three lines of a terminal with what is almost always the same."""
    stream = Out()
    configure("info", "console", stream, ManualClock(0.0))
    get_logger().info("request", flags={"STREAMING": True, "SHADOW": False})
    get_logger().info("request", flags={"STREAMING": True})
    some, none = (line.decode() for line in stream.writes)
    assert "flags_off=SHADOW" in some and "STREAMING" not in some and "flags" not in none


def test_the_console_obeys_no_control_characters_of_clients() -> None:
    """A header with an escape sequence could else clear an operator's screen, or fake a line."""
    stream = Out()
    configure("info", "console", stream)
    log_request(replace(RECORD, agent="a\x1b[2J\nfake"), {})
    assert b"\x1b" not in stream.writes[0]
    assert stream.writes[0].count(b"\n") == 1


def test_the_console_shows_tracebacks() -> None:
    stream = Out()
    configure("info", "console", stream)
    get_logger().error("boom", exc_info=raise_and_catch())
    assert b"ZeroDivisionError" in stream.writes[0]
    assert sys.exc_info() == (None, None, None)
