"""A head that is not what uvicorn would have written is a reply that clients read wrongly, or not at all."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.api.head import at_once
from app.api.inbound import Message, Receive, Scope, Send

STATE = ("response_started", "response_complete", "chunked_encoding", "expected_content_length", "keep_alive")
OURS = [(b"content-type", b"application/json"), (b"x-tierway-reason", b"cheapest; \xc3\xa9\t"), (b"x-empty", b"")]


class Wire:
    def __init__(self) -> None:
        self.told = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.told += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def told(app: Any, at: Any, method: str, keep_alive: bool, disconnected: bool) -> tuple[Any, ...]:
    """What comes of it: the bytes, how the cycle stands, and what was raised."""
    wire = Wire()
    cycle = RequestResponseCycle(
        scope=cast(Any, {"type": "http", "method": method, "path": "/"}),
        transport=cast(asyncio.Transport, wire),
        flow=cast(Any, SimpleNamespace(write_paused=False, resume_reading=lambda: None)),
        logger=logging.getLogger("told"),
        access_logger=logging.getLogger("told"),
        access_log=False,
        default_headers=[(b"date", b"now")],
        message_event=asyncio.Event(),
        expect_100_continue=True,
        keep_alive=keep_alive,
        on_response=lambda: None,
    )
    cycle.disconnected = disconnected
    raised = None
    try:
        await at(app, cycle)(cycle.scope, cycle.receive, cycle.send)
    except RuntimeError as error:
        raised = str(error)
    return (wire.told, wire.closed, raised, *(getattr(cycle, name) for name in STATE), cycle.waiting_for_100_continue)


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize(("method", "disconnected"), [("POST", False), ("HEAD", False), ("POST", True)])
@pytest.mark.parametrize("status", [200, 204, 404, 503])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        OURS,
        [*OURS, (b"content-length", b"4")],
        [*OURS, (b"Content-Length", b"4")],
        [(b"set-cookie", b"a"), (b"set-cookie", b"b")],
        [(b"transfer-encoding", b"chunked")],
        [(b"connection", b"close"), (b"content-length", b"4")],
        [(b"x-bad", b"a\r\nx-worse: 1")],
        [(b"x-bad", b"a"), (b"x-worse", b"\x00")],
        [(b"x bad", b"a")],
        [(b"x-bad\r\nx", b"a")],
        [(b"content-length", b"9")],
        [(b"content-length", b"9"), (b"content-length", b"4")],
    ],
)
async def test_replies_are_written_as_uvicorn_would(
    headers: list[tuple[bytes, bytes]], status: int, method: str, disconnected: bool, keep_alive: bool
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        messages: tuple[Message, ...] = (
            {"type": "http.response.start", "status": status, "headers": headers},
            {"type": "http.response.body", "body": b"bo", "more_body": True},
            {"type": "http.response.body", "body": b"dy"},
        )
        for message in messages:
            await send(message)

    case = (method, keep_alive, disconnected)
    assert await told(app, at_once, *case) == await told(app, lambda app, cycle: app, *case)


async def test_a_body_without_a_head_is_a_fault_as_ever() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    case = ("POST", True, False)
    assert await told(app, at_once, *case) == await told(app, lambda app, cycle: app, *case)
