"""Without these an operator cannot ask a gateway why it would choose a model, or gets a stack trace for an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from app.core.errors import InvalidApiKey, ModelNotFound
from app.wire.objects import write_error
from tests.cli.conftest import NOWHERE, Run

SAID: dict[str, Any] = {
    "score": 0.61,
    "tier": "complex",
    "task_type": "code",
    "confidence": 0.8,
    "strategy": "cost",
    "model": "claude/large",
    "memory_hits": 0,
    "explanation": "auto (cost) would go to claude/large: cheapest that can do it. " + "It is long-winded. " * 8,
    "candidates": [
        {
            "model": "claude/large",
            "cost_usd": 0.008,
            "latency_ms": 800,
            "predicted": 0.95,
            "reason": "cheapest that can do it",
        },
        {
            "model": "ollama/small-one",
            "cost_usd": 0,
            "latency_ms": None,
            "predicted": None,
            "reason": "weaker than it asks for",
        },
    ],
    "excluded": [{"model": "gpu/sight", "reason": "this key may not use it"}],
}


class Stub(HTTPServer):
    """A server that says one thing, and remembers what it was asked."""

    status, body = 200, json.dumps(SAID).encode()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str], Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(self.server.status)
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


def test_why_what_it_costs_and_what_else_there_is(run: Run, stub: Stub) -> None:
    result = run("route", "Sort a list", "--url", stub.url + "/")
    assert result.exit_code == 0
    first, _, *words = result.stdout.splitlines()
    assert first == "claude/large" and words[0].startswith("auto (cost) would go to claude/large: cheapest")
    assert max(map(len, words)) <= 100
    assert words[-4:] == [
        "model                    USD  first token  success  why",
        "claude/large        0.008000       800 ms      95%  cheapest that can do it",
        "ollama/small-one    0.000000      unknown  unknown  weaker than it asks for",
        "gpu/sight                  -            -        -  left out: this key may not use it",
    ]
    ((path, headers, body),) = stub.asked
    assert path == "/v1/route"
    assert body == {"model": "auto", "messages": [{"role": "user", "content": "Sort a list"}]}
    assert "authorization" not in headers and "x-tierway-strategy" not in headers


def test_as_json_it_is_what_the_gateway_said(run: Run, stub: Stub) -> None:
    result = run("route", "Sort", "--json", "--url", stub.url)
    assert json.loads(result.stdout) == SAID


def test_what_is_asked_for_reaches_the_gateway(run: Run, stub: Stub) -> None:
    run("route", "Sort", "--url", stub.url, "--key", "k1", "--model", "auto:cost", "--strategy", "quality")
    run("route", "Sort", "--url", stub.url, TIERWAY_ADMIN_KEY="boss")
    assert [headers["authorization"] for _, headers, _ in stub.asked] == ["Bearer k1", "Bearer boss"]
    assert stub.asked[0][1]["x-tierway-strategy"] == "quality" and stub.asked[0][2]["model"] == "auto:cost"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InvalidApiKey("An API key is needed."), "wants a valid key: give an API key or the admin key by --key.\n"),
        (ModelNotFound("None."), "The gateway said 404: None.\n"),
    ],
)
def test_what_the_gateway_refuses_is_said(run: Run, stub: Stub, error: Any, words: str) -> None:
    stub.status, stub.body = error.status, write_error(error)
    result = run("route", "Sort", "--url", stub.url)
    assert (result.exit_code, result.stdout) == (1, "") and result.stderr.endswith(words)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"model": "a"}'),
        (200, json.dumps({**SAID, "candidates": []}).encode()),
        (200, json.dumps({**SAID, "candidates": [{"model": 5}]}).encode()),
        (502, b"Bad gateway"),
        (500, b"[1]"),
        (500, b'{"error": null}'),
    ],
)
def test_what_is_no_gateway_is_said_to_be_none(run: Run, stub: Stub, status: int, body: bytes) -> None:
    stub.status, stub.body = status, body
    result = run("route", "Sort", "--url", stub.url)
    assert result.exit_code == 1 and result.stderr == f"What answers at {stub.url} is no gateway.\n"


def test_nobody_there(run: Run) -> None:
    result = run("route", "Sort", "--url", NOWHERE)
    assert result.exit_code == 1 and "tierway serve" in result.stderr
    assert "no gateway" not in run("route", "Sort", "--url", "http://[").stdout


def test_bytes_that_are_no_text_are_not_sent(run: Run, stub: Stub) -> None:
    """As a shell hands them on from a file in another encoding."""
    result = run("route", "Sort \udcff", "--url", stub.url)
    assert result.exit_code == 2 and "UTF-8" in result.stderr and stub.asked == []
