"""HTTP towards upstreams: one method, and transport failures become core errors in this one place.

Nothing is retried and no redirect is followed. Of the four clocks of an attempt one is for connecting; from then on
one timer (`Alarm`) keeps the other three and the request's deadline, at the cost of an attribute write per event. Time
the consumer spends is not counted against the upstream.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple, Protocol

from app.core.buffers import Buffers
from app.core.errors import BadReply, InternalError, Refused, TimedOut
from app.upstreams.connection import Connection, nobody_counts
from app.upstreams.dial import Target, connect, target_of

REPLY_BYTES_MAX: Final = 64 * 1024 * 1024
ERROR_BYTES_MAX: Final = 64 * 1024
OWN_WORK_SECONDS: Final = 0.05
"""Pauses up to this are our own work between two reads, and not a consumer that is slow."""
LEAST_WAIT_SECONDS: Final = 0.001
TIMEOUT_WORDS: Final[Mapping[str, str]] = {
    "first_token": "The upstream sent no content in time.",
    "idle": "The upstream stopped sending in the middle of its answer.",
    "total": "The upstream took longer in all than it may.",
}


class Clocks(NamedTuple):
    """Seconds an upstream may take: to accept a connection, until its first content, between events, in all; and when
    the request itself is over."""

    connect: float = 5.0
    first_token: float = 60.0
    idle: float = 60.0
    total: float = 600.0
    deadline: float = math.inf  # of the request, in monotonic seconds


class Call(NamedTuple):
    """One HTTP request. `streams`: its reply is passed on as it comes, and comes no faster than it is taken."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    streams: bool = False


class Reply(Protocol):
    """A reply whose head has come. `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    alarm: Alarm

    @property
    def content_type(self) -> str:
        """Lower case, without parameters; empty when the upstream did not say."""
        ...

    async def more(self) -> bytes:
        """The next bytes of the body, none at its end. Raises `Broken` when it breaks off, `TimedOut` when a clock
        runs out."""
        ...

    async def read(self, limit: int = REPLY_BYTES_MAX) -> bytes:
        """The whole body. Raises `BadReply` beyond `limit` bytes."""
        ...


class Transport(Protocol):
    def send(self, call: Call, clocks: Clocks) -> contextlib.AbstractAsyncContextManager[Reply]:
        """Sends and waits for the head of the reply. Leaving the context early closes the connection."""
        ...

    async def close(self) -> None: ...


class Alarm:
    """One timer for the clocks of one attempt.

    `wait` says which clock runs while we wait for the upstream. Once the connection has given something we do not wait:
    the upstream's clocks stand still while a consumer is busy for long, the caller's deadline does not. When one runs
    out while we wait, the body's reader wakes up with `TimedOut`. Times are real ones: an event loop's own time stands
    while one task keeps it busy.
    """

    def __init__(self, content: Connection, clocks: Clocks, started: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._content = content
        self._end_at = min(started + clocks.total, clocks.deadline)
        self._total_at = started + clocks.total
        self._first_at = started + clocks.first_token
        self._deadline = clocks.deadline
        self._idle = clocks.idle
        self._in_content = False
        self._limit = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def content(self, came: bool) -> None:
        """From the first content event on, the idle clock runs instead of the first-token clock."""
        self._in_content = came

    def wait(self) -> None:
        """Raises `TimedOut` when a clock has run out already: an upstream that always has data never lets it ring."""
        now, rested_at = time.monotonic(), self._content.rested_at
        if rested_at is not None and now - rested_at > OWN_WORK_SECONDS:
            self._total_at += now - rested_at
            self._first_at += now - rested_at
            self._end_at = min(self._total_at, self._deadline)
        limit = now + self._idle if self._in_content else self._first_at
        self._limit = limit = limit if limit < self._end_at else self._end_at
        if now >= limit:
            raise self._ran_out(now)
        if self._timer is None or self._rings_at > limit:
            self._schedule(limit, now)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, when: float, now: float) -> None:
        self.stop()
        self._rings_at = when
        self._timer = self._loop.call_later(max(when - now, LEAST_WAIT_SECONDS), self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._content.rested_at is not None:
            return  # nobody waits; whoever does next sets it again
        now = time.monotonic()
        if now < self._limit:
            self._schedule(self._limit, now)
        else:
            self._content.set_exception(self._ran_out(now))

    def _ran_out(self, now: float) -> TimedOut:
        if now >= self._end_at:
            phase = "total"
        else:
            phase = "idle" if self._in_content else "first_token"
        return TimedOut(TIMEOUT_WORDS[phase], phase=phase)


class HttpTransport:
    """The transport over our own connections: those that are kept are used again, the last one first.

    `keepalive` (seconds) stays below what servers keep idle connections for (uvicorn: 5), so that a request is not
    sent into a connection that is just being closed. Streams have connections of their own, with `buffers` that bound
    what one of them may hold, and `held` is told of what waits there.
    """

    def __init__(
        self,
        *,
        keepalive: float = 4.0,
        buffers: Buffers | None = None,
        held: Callable[[int], None] = nobody_counts,
    ) -> None:
        self._keepalive = keepalive
        self._buffers = buffers or Buffers()
        self._make = functools.partial(Connection, self._buffers, held)
        self._idle: dict[tuple[bool, str, int, bool], list[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def send(self, call: Call, clocks: Clocks) -> Sending:
        return Sending(self, call, clocks)

    def kept(self, target: Target, *, streams: bool) -> Connection | None:
        """A connection to there that was used before."""
        idle = self._idle.get((*target.origin, streams))
        if not idle:
            return None
        since = time.monotonic() - self._keepalive
        while idle:
            connection = idle.pop()
            if connection.usable and not _stale(connection, since):
                return connection
            connection.close()
        return None

    async def made(self, target: Target, clocks: Clocks, *, streams: bool) -> Connection:
        """A new connection to there. Raises `Refused` when the connect clock runs out, and `TimedOut` when the attempt
        as a whole does before that: a caller in a hurry says nothing about the upstream."""
        left = min(clocks.total, clocks.deadline - time.monotonic())
        try:
            async with asyncio.timeout(min(clocks.connect, left)):
                size = self._buffers.receive_socket(secure=target.secure, streams=streams)
                return await connect(target, size, self._make)
        except TimeoutError as error:
            if clocks.connect < left:
                raise Refused("The upstream accepts no connection.") from error
            fault = TimedOut(TIMEOUT_WORDS["total"], phase="total")
            fault.billed = False  # nothing was sent
            raise fault from error

    def given_back(self, target: Target, connection: Connection, *, streams: bool) -> None:
        if not connection.reusable:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.setdefault((*target.origin, streams), []).append(connection)
        if self._sweeper is None:
            self._sweep()

    def _sweep(self) -> None:
        """Closes what was idle for too long, as often as that takes."""
        since, kept = time.monotonic() - self._keepalive, 0
        for idle in self._idle.values():
            for connection in [each for each in idle if not each.usable or _stale(each, since)]:
                idle.remove(connection)
                connection.close()
            kept += len(idle)
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self._keepalive / 4, self._sweep) if kept else None

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in itertools.chain.from_iterable(self._idle.values()):
            connection.close()
        self._idle.clear()


def _stale(connection: Connection, since: float) -> bool:
    return connection.idle_since is None or connection.idle_since <= since


class Sending:
    """One request and its reply; as a context manager, because a connection must not outlive whoever reads it."""

    def __init__(self, transport: HttpTransport, call: Call, clocks: Clocks) -> None:
        self._transport = transport
        self._call: Call | None = call  # until it is written
        self._streams = call.streams
        self._clocks = clocks
        self._target = target_of(call.url)
        self._connection: Connection | None = None
        self._alarm: Alarm | None = None

    async def __aenter__(self) -> Reply:
        started, target, streams = time.monotonic(), self._target, self._streams
        connection = self._transport.kept(target, streams=streams)
        if connection is None:
            connection = await self._transport.made(target, self._clocks, streams=streams)
        self._connection = connection
        alarm = self._alarm = Alarm(connection, self._clocks, started)
        call, self._call = self._call, None
        assert call is not None, "one is sent once"
        try:
            connection.send(_written(call, target))
            del call
            alarm.wait()
            await connection.head()
        except BaseException:  # whatever it was, nobody will read the reply
            self._leave()
            raise
        return HttpReply(connection, alarm)

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._alarm is not None:
            self._alarm.stop()
        if self._connection is not None:
            self._transport.given_back(self._target, self._connection, streams=self._streams)


def _written(call: Call, target: Target) -> bytes:
    """The request's bytes. Raises `InternalError` for a header that would say more than one line."""
    lines = [f"{call.method} {target.path} HTTP/1.1", f"host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in call.headers.items()]
    if call.body is not None:
        lines.append(f"content-length: {len(call.body)}")
    head = "\r\n".join((*lines, "\r\n"))
    if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
        raise InternalError("A header of a request to an upstream holds a line break.")
    return head.encode("latin-1", "replace") + (call.body or b"")


class HttpReply:
    def __init__(self, connection: Connection, alarm: Alarm) -> None:
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        self.alarm = alarm
        self._connection = connection

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def more(self) -> Coroutine[Any, Any, bytes]:
        self.alarm.wait()
        return self._connection.more()

    async def read(self, limit: int = REPLY_BYTES_MAX) -> bytes:
        parts: list[bytes] = []
        size = 0
        while data := await self.more():
            size += len(data)
            if size > limit:
                raise BadReply(f"The upstream's reply is larger than {limit} bytes.")
            parts.append(data)
            if self._connection.finished:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)
