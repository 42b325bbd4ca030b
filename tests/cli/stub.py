"""A gateway's admin side for a command: it says what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import orjson


class Stub(HTTPServer):
    status: int = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[Any] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        length = int(self.headers["content-length"] or 0)
        body = self.rfile.read(length)
        self.server.asked.append((self.command, self.path, orjson.loads(body) if body else None))
        self.server.keys.append(self.headers["authorization"])
        reply = self.server.replies.pop(0)
        data = reply if isinstance(reply, bytes) else orjson.dumps(reply)
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *arguments: object) -> None:
        """Not onto the terminal."""


@contextlib.contextmanager
def stubbed() -> Iterator[Stub]:
    server = Stub()
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
