"""Without these an operator gets a stack trace for a report, or a web page's text as one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.core.errors import InvalidApiKey, NotFound, Unprocessable
from app.spend.figures import figures
from app.spend.report import Day, Report
from app.spend.sums import Sums
from app.wire.objects import write_error
from tests.cli.conftest import NOWHERE, Run

TOTAL = figures(Sums(requests=4, answers=4, local=3, cost=10**9))
REPORT = Report.model_validate(
    {
        "first_day": "2026-11-19",
        "last_day": "2026-11-20",
        "observed_days": 1.5,
        "total": TOTAL,
        "local_share": 0.75,
        "days": [Day(day=date(2026, 11, 20), **TOTAL.model_dump())],
        "verdict": "none",
        **dict.fromkeys(("kinds", "models", "machines", "all_time", "goals"), ()),
        **dict.fromkeys(("availability", "fallback_share", "cost_usd_per_request", "cost_usd_per_month")),
        **dict.fromkeys(("savings_share", "investment")),
    }
)


class Stub(HTTPServer):
    """A server that says one thing, and remembers what it was asked."""

    status, kind, body = 200, "application/json", REPORT.model_dump_json().encode()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, list[str]], str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.server.asked.append((url.path, parse_qs(url.query), self.headers["authorization"]))
        self.send_response(self.server.status)
        self.send_header("content-type", self.server.kind)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *arguments: object) -> None:
        """Not onto the terminal."""


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_report_for_a_terminal(run: Run, stub: Stub) -> None:
    result = run("report", "--since", "2d", "--url", stub.url + "/", TIERWAY_ADMIN_KEY="boss")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "Report on 2026-11-19 to 2026-11-20 (UTC)"
    assert lines[-1] == f"  2026-11-20      1.000000  {'#' * 48}"
    assert stub.asked == [("/admin/report", {"format": ["json"], "since": ["2d"]}, "Bearer boss")]


def test_what_is_asked_for_reaches_the_gateway(run: Run, stub: Stub) -> None:
    goals = ("--goal", "local_share=0.8", "--goal", "quality=0.7")
    run("report", "--from", "2026-11-19", "--to", "2026-11-20", *goals, "--url", stub.url, "--key", "k")
    run("report", "--investment", "9000", "--per-month", "0.5", "--url", stub.url)
    assert stub.asked == [
        (
            "/admin/report",
            {
                "format": ["json"],
                "from": ["2026-11-19"],
                "to": ["2026-11-20"],
                "goal": ["local_share=0.8", "quality=0.7"],
            },
            "Bearer k",
        ),
        ("/admin/report", {"format": ["json"], "investment": ["9000.0"], "per_month": ["0.5"]}, None),
    ]


def test_as_json_it_is_what_the_gateway_said(run: Run, stub: Stub) -> None:
    result = run("report", "--json", "--url", stub.url)
    assert json.loads(result.stdout) == json.loads(stub.body)


@pytest.mark.parametrize(
    ("option", "kind", "body"),
    [("--csv", "text/csv; charset=utf-8", b"part,name\r\nx,y\r\n"), ("--markdown", "text/markdown", b"# Report\n")],
)
def test_as_a_file(run: Run, stub: Stub, tmp_path: Path, option: str, kind: str, body: bytes) -> None:
    stub.kind, stub.body = kind, body
    target = tmp_path / "report"
    result = run("report", option, "-o", str(target), "--url", stub.url)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"Written to {target}.\n")
    assert target.read_bytes() == body
    assert run("report", option, "--url", stub.url).stdout.split() == body.decode().split()
    assert stub.asked[0][1]["format"] == [option[2:]]


def test_a_file_that_cannot_be_written_is_said(run: Run, stub: Stub, tmp_path: Path) -> None:
    result = run("report", "-o", str(tmp_path / "none" / "report"), "--url", stub.url)
    assert result.exit_code == 1 and "cannot be written: No such file or directory" in result.stderr


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InvalidApiKey("This needs the admin key."), 1, "wants its admin key: give it by --key"),
        (NotFound("The admin endpoints are off."), 1, "The gateway said 404: The admin endpoints are off."),
        (Unprocessable("since: '90d' is no"), 2, "The gateway said 422: since: '90d' is no"),
    ],
)
def test_what_the_gateway_refuses_is_said(run: Run, stub: Stub, error: Any, status: int, words: str) -> None:
    stub.status, stub.body = error.status, write_error(error)
    result = run("report", "--url", stub.url)
    assert (result.exit_code, result.stdout) == (status, "") and words in result.stderr


@pytest.mark.parametrize(
    ("status", "kind", "body", "options"),
    [
        (200, "text/html", b"<html>", ()),
        (200, "text/html", b"<html>", ("--csv",)),
        (200, "application/json", b"<html>", ()),
        (200, "application/json", b"[]", ("--json",)),
        (200, "application/json", b'{"object": "report"}', ()),
        (502, "text/plain", b"Bad gateway", ()),
        (500, "application/json", b"[1]", ()),
        (500, "application/json", b'{"error": null}', ("--markdown",)),
    ],
)
def test_what_is_no_gateway_is_said_in_a_word(
    run: Run, stub: Stub, status: int, kind: str, body: bytes, options: tuple[str, ...]
) -> None:
    stub.status, stub.kind, stub.body = status, kind, body
    result = run("report", *options, "--url", stub.url)
    assert (result.exit_code, result.stdout) == (1, "") and len(result.stderr.splitlines()) == 1


def test_nobody_there(run: Run) -> None:
    result = run("report", "--url", NOWHERE)
    assert result.exit_code == 1 and "tierway serve" in result.stderr
    assert run("report", "--url", "http://[").exit_code == 1


@pytest.mark.parametrize(
    "options", [("--json", "--csv"), ("--csv", "--markdown"), ("--investment", "-1"), ("--per-month", "x")]
)
def test_what_cannot_be_meant_is_refused(run: Run, stub: Stub, options: tuple[str, ...]) -> None:
    result = run("report", *options, "--url", stub.url)
    assert (result.exit_code, result.stdout, stub.asked) == (2, "", [])


def test_help_has_an_example(run: Run) -> None:
    assert "tierway report --since 7d" in run("report", "--help").stdout
