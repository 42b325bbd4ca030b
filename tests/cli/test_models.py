"""Without these an operator cannot see what a gateway offers, or gets a stack trace for an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from app.core.errors import InvalidApiKey, Overloaded
from app.core.money import Price
from app.wire.objects import write_error, write_models
from tests.api.site import card
from tests.cli.conftest import NOWHERE, Run

MODELS = (
    card("ollama/small", context_window=32_768, complexity=(0.0, 0.4), price=Price(0, 0, 0, 0, 0)),
    card("claude/large", complexity=(0.6, 1.0), price=Price(4_000_000, 20_000_000, 0, 0, 0)),
    card("gpu/unknown", price=None),
)


class Stub(HTTPServer):
    """A server that says one thing, and remembers what it was asked with."""

    status, body = 200, write_models(MODELS, {model.id: "ready" for model in MODELS})

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("authorization")))
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


def test_models_are_listed_with_window_price_and_state(run: Run, stub: Stub) -> None:
    result = run("models", "--url", stub.url + "/")
    assert result.exit_code == 0
    head, *lines = [line.split() for line in result.stdout.splitlines()]
    assert head[0] == "model" and lines == [
        ["ollama/small", "32768", "0/0", "0.0-0.4", "ready"],
        ["claude/large", "unknown", "4/20", "0.6-1.0", "ready"],
        ["gpu/unknown", "unknown", "unknown", "0.0-1.0", "ready"],
    ]
    assert stub.asked == [("/v1/models", None)]


def test_as_json_it_is_what_the_gateway_said(run: Run, stub: Stub) -> None:
    result = run("models", "--json", "--url", stub.url)
    assert json.loads(result.stdout) == json.loads(stub.body)


def test_the_key_is_an_option_or_the_admin_key_of_the_environment(run: Run, stub: Stub) -> None:
    run("models", "--url", stub.url, TIERWAY_ADMIN_KEY="boss")
    run("models", "--url", stub.url, "--key", "s3", TIERWAY_ADMIN_KEY="boss")
    assert [key for _, key in stub.asked] == ["Bearer boss", "Bearer s3"]


def test_by_default_it_is_the_gateway_of_this_environment(run: Run, stub: Stub) -> None:
    """Who moved the gateway to another port need not say so twice."""
    assert run("models", TIERWAY_PORT=str(stub.server_port)).exit_code == 0
    assert run("models", TIERWAY_HOST="0.0.0.0", TIERWAY_PORT=str(stub.server_port)).exit_code == 0
    result = run("models", TIERWAY_HOST="127.0.0.2", TIERWAY_PORT="1")
    assert result.exit_code == 1 and "http://127.0.0.2:1/" in result.stderr


def test_without_a_valid_key_it_says_how_to_give_one(run: Run, stub: Stub) -> None:
    stub.status, stub.body = 401, write_error(InvalidApiKey("An API key is needed."))
    result = run("models", "--url", stub.url)
    assert result.exit_code == 1 and "--key" in result.stderr and result.stdout == ""


def test_an_error_of_the_gateway_is_passed_on(run: Run, stub: Stub) -> None:
    stub.status, stub.body = 503, write_error(Overloaded("Full."))
    result = run("models", "--url", stub.url)
    assert result.exit_code == 1 and "503" in result.stderr and "Full." in result.stderr


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"5", b"{}", b'{"data": 5}', b'{"data": [5]}', b'{"data": [{"id": "gpt"}]}'],
)
def test_what_is_no_gateway_is_said_to_be_none(run: Run, stub: Stub, body: bytes) -> None:
    stub.body = body
    result = run("models", "--url", stub.url)
    assert result.exit_code == 1 and "no gateway" in result.stderr and result.stdout == ""


@pytest.mark.parametrize("url", [NOWHERE, "nonsense", "ftp://127.0.0.1", "http://[::1", "http://"])
def test_where_nothing_answers_it_says_how_to_start_one(run: Run, url: str) -> None:
    result = run("models", "--url", url)
    assert result.exit_code == 1 and "tierway serve" in result.stderr
