"""The way to a client that reads a stream: kept alive while nothing comes, given up when nothing is taken.

When no content has come for a while, headers go out and comments keep proxies awake; a client that takes nothing is
dropped. What is written is others' business.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from app.api.errors import shown
from app.api.inbound import Headers, Inbound
from app.core.errors import ClientGone, GatewayError
from app.core.tasks import Watched

STREAM_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
PING: Final = b": ping\n\n"
LOOKS: Final = 4
"""How often a write is looked at until its time is over."""


@dataclass(frozen=True, slots=True)
class LineTimes:
    """Seconds: until headers go out without content, between keep-alives, for one write to be taken."""

    commit_after: float = 15.0
    ping: float = 15.0
    send_timeout: float = 30.0


class Line:
    """The way to a client that reads a stream."""

    ping = PING

    def __init__(self, inbound: Inbound, times: LineTimes) -> None:
        self._inbound = inbound
        self._times = times
        self._time = asyncio.get_running_loop().time
        self._last = inbound.started
        self._writing = False
        self._held: list[bytes] = []
        self._left: int | None = None  # of what was sent, when last looked

    async def open(self, headers: Headers) -> None:
        if not self._inbound.answered:
            await self._inbound.begin(200, [*STREAM_HEADERS, *headers])

    def hold(self, data: bytes) -> None:
        """To leave with the next write, which follows at once."""
        self._held.append(data)

    async def write(self, data: bytes, *, more: bool = True) -> None:
        if self._held:
            data = b"".join((*self._held, data))
            self._held.clear()
        self._writing, self._last = True, self._time()
        await self._inbound.write(data, more=more)
        self._writing = False

    async def end(self, data: bytes) -> None:
        await self.write(data, more=False)

    async def last(self, data: bytes) -> None:
        """`end` for when nobody watches the client any more: without waiting for one that takes nothing."""
        try:
            async with asyncio.timeout(self._times.send_timeout):
                await self.end(data)
        except TimeoutError:
            self._inbound.abort()

    def wake(self) -> float:
        """When to call `tick` next, in loop seconds: a write that begins meanwhile must not be looked at too late."""
        return min(self._due(), self._time() + self._times.send_timeout / LOOKS)

    def _due(self) -> float:
        times = self._times
        if self._writing:
            return self._last + times.send_timeout
        return self._last + (times.ping if self._inbound.answered else times.commit_after)

    def _look(self) -> None:
        """A client that takes anything is slow, and not gone: a write may need many of its readings."""
        left = self._inbound.waiting()
        if left is not None and self._left is not None and left < self._left:
            self._last = self._time()
        self._left = left

    async def tick(self) -> None:
        """Does what is due. Raises `ClientGone` for a client that takes nothing."""
        if self._writing:
            self._look()
        if self._time() < self._due():
            return
        if self._writing:
            raise ClientGone("The client takes nothing of its answer.")
        try:
            async with asyncio.timeout(self._times.send_timeout):
                await self.open([(b"x-request-id", self._inbound.request_id.encode())])
                await self.write(self.ping)
        except TimeoutError:
            raise ClientGone("The client does not even take a comment.") from None


async def keep(inbound: Inbound, line: Line) -> None:
    """Returns when the client has left; meanwhile keeps the line alive."""
    while True:
        try:
            async with asyncio.timeout_at(line.wake()):
                await inbound.gone()
                return
        except TimeoutError:
            await line.tick()


@contextlib.asynccontextmanager
async def ended(inbound: Inbound, line: Line, last: Callable[[GatewayError], bytes]) -> AsyncIterator[None]:
    """Around a stream: once its head has gone out, the line itself must say how it `last` ended. A client that takes
    nothing is dropped; of one that has left there is nobody to tell."""
    try:
        yield
    except ClientGone:
        inbound.abort()
        await asyncio.sleep(0)  # in which the server learns of it, or it would log an answer without an end
    except Watched:
        pass
    except (Exception, asyncio.CancelledError) as error:  # whatever it was: raised again
        if inbound.answered:
            await line.last(last(shown(error, inbound.request_id)))
        raise
