"""Log lines: one JSON object each, or columns for people, to one stream, from structlog and from stdlib logging alike.

A finished request is one wide event whose fields are listed here and nowhere else; bodies, headers and keys have no
field to be in. The level is the root logger's, so that one setting rules both worlds and can change at run time.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from operator import attrgetter
from select import PIPE_BUF
from typing import Any, BinaryIO, Final

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

from app.core.clock import Clock, SystemClock
from app.core.money import usd
from app.core.record import Record

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
TEXT_MAX: Final = 256  # of a value that a caller chose
EXTRA_FIELDS: Final = ("task_type", "quality", "config_version")
_FROM_RECORD: Final = (
    *(
        "request_id",
        "trace_id",
        "tenant",
        "key_id",
        "agent",
        "session",
        "endpoint",
        "model_requested",
        "model",
        "upstream",
    ),
    *("tier", "score", "strategy", "reason", "stream", "status", "error_code", "first_token_seconds", "seconds"),
    *("overhead_seconds", "flags"),
)
_of_record: Final = attrgetter(*_FROM_RECORD)
_CHOSEN: Final = ("tenant", "key_id", "agent", "session", "model_requested", "model", "upstream", "reason")
"""The texts among them that somebody else chose, or that quote one."""
_NUMBERS: Final = ("score", "first_token_seconds", "seconds", "overhead_seconds")
_ROOT: Final = logging.getLogger()
_QUIET: Final = ("uvicorn.access", "aiohttp.access")

Event = MutableMapping[str, Any]
Render = Callable[[Event], bytes]


def configure(level: str, format: str, stream: BinaryIO, clock: Clock | None = None) -> None:
    """Sends everything that is logged in this process to `stream`, as `json` or for the `console`."""
    sink = Sink(stream)
    render = render_json if format == "json" else console_renderer(colors=stream.isatty())
    stamp = Stamp(clock or SystemClock())
    _ROOT.handlers[:] = [LineHandler(sink, render, stamp)]
    for name in _QUIET:
        logging.getLogger(name).disabled = True
    set_level(level)
    structlog.configure(
        processors=[Threshold(_ROOT), stamp, lambda _logger, _method, event: render(event)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )


def set_level(level: str) -> None:
    """From now on, lines below `debug`, `info`, `warning`, `error` or `critical` are left out."""
    _ROOT.setLevel(LEVELS[level])


def level() -> str:
    """The least level that is logged at this moment."""
    number = _ROOT.level
    return next((name for name, least in LEVELS.items() if least >= number), "critical")


def get_logger(component: str | None = None) -> FilteringBoundLogger:
    """The logger of one part of the program, or of none: `log.warning("state", upstream="gpu", state="open")`. May be
    asked for before `configure`."""
    fields = {} if component is None else {"component": component}
    logger: FilteringBoundLogger = structlog.get_logger(**fields)
    return logger


def log_request(record: Record, extra: Mapping[str, Any]) -> None:
    """The line of one finished request. It goes straight to where `configure` sends lines, past structlog, which would
    copy its fields five times."""
    if record.status >= 500:
        level = "error"
    else:
        level = "info" if record.error_code is None or record.status >= 400 else "warning"
    if LEVELS[level] < _ROOT.level:
        return
    event = request_event(record, extra)
    for handler in _ROOT.handlers:
        if isinstance(handler, LineHandler):
            handler.write(level, "request", event)


def request_event(record: Record, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request's line. Of `extra`, what is known beside the record, only `EXTRA_FIELDS` count."""
    event = dict(zip(_FROM_RECORD, _of_record(record), strict=True))
    for name in _CHOSEN:
        if (text := event[name]) is not None and len(text) > TEXT_MAX:
            event[name] = f"{text[:TEXT_MAX]}…"
    for name in _NUMBERS:
        if (number := event[name]) is not None:
            event[name] = round(number, 6)
    tokens = record.tokens
    event["attempts"] = [
        {"model": a.model, "outcome": a.outcome, "blame": a.blame and str(a.blame), "seconds": round(a.seconds, 6)}
        for a in record.attempts
    ]
    event["tokens_in"] = None if tokens is None else tokens.prompt
    event["tokens_out"] = None if tokens is None else tokens.completion
    event["cost_usd"] = None if record.cost_nano is None else usd(record.cost_nano)
    event["parent_request_id"] = record.parent_id
    for name in EXTRA_FIELDS:
        event[name] = extra.get(name)
    return event


# --- from an event to a line ----------------------------------------------------------------------------------------


class Sink:
    """Each line in one write, from any thread: workers share a pipe, and only so much stays in one piece there. A
    stream that broke loses lines, not requests."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._gathered = b""
        self._loop: asyncio.AbstractEventLoop | None = None

    def write(self, line: bytes = b"") -> None:
        """At once, behind all that was gathered."""
        with self._lock:
            for lines in (self._gathered, line):
                if lines:
                    self._put(lines)
            self._gathered = b""

    def gather(self, line: bytes) -> None:
        """Together with what else this turn of the event loop brings; at once where none runs."""
        loop = asyncio._get_running_loop()
        if loop is None:
            self.write(line)
            return
        with self._lock:
            before = self._gathered
            if before and len(before) + len(line) > PIPE_BUF:
                self._put(before)
                self._gathered = line
            else:
                self._gathered = before + line
        if not before or loop is not self._loop:  # one that has ended writes nothing any more
            self._loop = loop
            loop.call_soon(self.write)

    def _put(self, lines: bytes) -> None:
        try:
            self._stream.write(lines)
            self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = write


class Threshold:
    """Drops what is below the level that stdlib logging has at this moment."""

    def __init__(self, root: logging.Logger) -> None:
        self._root = root

    def __call__(self, _logger: Any, method: str, event: Event) -> Event:
        if LEVELS[method] < self._root.level:
            raise structlog.DropEvent
        return event


class Stamp:
    """Puts time and level in front. A line that brings fields of these names does not get to say how grave it is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = (-1, "")  # a second, and how it is written: the same for many lines

    def __call__(self, _logger: Any, level: str, event: Event) -> Event:
        own = self.own(level, event.pop("event"))
        return {**own, **event, **own}

    def own(self, level: str, name: Any) -> dict[str, Any]:
        second, ms = divmod(int(self._clock.now() * 1_000), 1_000)
        last = self._last
        if last[0] != second:
            last = self._last = second, f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
        return {"timestamp": f"{last[1]}.{ms:03d}Z", "level": level, "event": name}


def render_json(event: Event) -> bytes:
    if (error := event.pop("exc_info", None)) is not None:
        event["exception"] = _traceback(error)
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # A lone surrogate, a huge integer, a key that is no text: the line is worth more than its form.
        return orjson.dumps({str(name): ascii(value) for name, value in event.items()}) + b"\n"


def console_renderer(colors: bool) -> Render:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )

    def render(event: Event) -> bytes:
        if isinstance(flags := event.pop("flags", None), dict):
            event["flags_off"] = ", ".join(name for name, on in flags.items() if not on)
        told = {name: _visible(value) for name, value in event.items() if value not in (None, "", [], {})}
        return f"{renderer(None, '', told)}\n".encode("utf-8", "replace")

    return render


def _visible(value: Any) -> Any:
    """A terminal obeys control characters, and some values come from clients."""
    if isinstance(value, str) and not value.isprintable():
        return value.encode("unicode_escape").decode()
    return value


def _traceback(error: Any) -> str | None:
    """What `exc_info` may hold: True for the current exception, an exception, or the stdlib's triple."""
    if isinstance(error, tuple):
        error = error[1]
    found = error if isinstance(error, BaseException) else sys.exc_info()[1]
    return None if found is None else "".join(traceback.format_exception(found))


class LineHandler(logging.Handler):
    """Lines of uvicorn, aiohttp and asyncio, in the same form; and those of requests."""

    def __init__(self, sink: Sink, render: Render, stamp: Stamp) -> None:
        super().__init__()
        self._sink, self._render, self._stamp = sink, render, stamp

    def write(self, level: str, name: str, fields: Mapping[str, Any]) -> None:
        """A line of fields that are known to be none of the stamp's."""
        self._sink.gather(self._render({**self._stamp.own(level, name), **fields}))

    def flush(self) -> None:
        """Called when the process ends, too."""
        self._sink.write()

    def emit(self, record: logging.LogRecord) -> None:
        event: Event = {"event": _message(record), "component": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        self._sink.write(self._render(self._stamp(None, record.levelname.lower(), event)))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit must not break what the line is about
        return str(record.msg)
