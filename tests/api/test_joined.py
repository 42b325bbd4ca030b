from __future__ import annotations

import asyncio
from typing import cast

from app.api.joined import Joined


class Wire:
    """What a transport was told."""

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def joined() -> tuple[Joined, Wire]:
    wire = Wire()
    return Joined(cast(asyncio.Transport, wire), asyncio.get_running_loop()), wire


async def test_a_body_that_comes_at_once_leaves_with_its_head() -> None:
    reply, wire = joined()
    reply.write(b"head ")
    reply.write(b"body")
    await asyncio.sleep(0)
    reply.write(b"more")
    assert wire.told == [b"head body", b"more"]


async def test_a_head_never_waits_for_a_body_that_takes_its_time() -> None:
    """A client that waits for the status of a slow stream would give up."""
    reply, wire = joined()
    reply.write(b"head")
    await asyncio.sleep(0)
    assert wire.told == [b"head"]
    reply.write(b"event")
    assert wire.told == [b"head", b"event"], "every later write leaves at once"


async def test_closing_loses_nothing() -> None:
    """A refusal without a body is a head and a closed connection."""
    reply, wire = joined()
    reply.write(b"head")
    reply.close()
    await asyncio.sleep(0)
    assert (wire.told, wire.closed) == ([b"head"], True)


async def test_nothing_is_written_to_a_connection_that_is_gone() -> None:
    reply, wire = joined()
    reply.write(b"head")
    wire.closed = True
    await asyncio.sleep(0)
    assert wire.told == []
