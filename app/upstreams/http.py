"""HTTP towards upstreams: one method, and transport failures become core errors in this one place.

Nothing is retried and no redirect is followed. The four clocks of an attempt are kept by one timer (`Alarm`) that
costs an attribute write per event; time the consumer spends is not counted against the upstream.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

import aiohttp

from app.core.errors import BadReply, Broken, Refused, TimedOut

READ_BUFFER_BYTES: Final = 65_536
RECEIVE_BUFFER_BYTES: Final = 131_072  # Linux doubles it
REPLY_BYTES_MAX: Final = 64 * 1024 * 1024
ERROR_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds an upstream may take: to accept a connection, until its first content, between events, in all; and when
    the request itself is over."""

    connect: float = 5.0
    first_token: float = 60.0
    idle: float = 60.0
    total: float = 600.0
    deadline: float = math.inf  # of the request, in monotonic seconds


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


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

    `wait` says which clock runs while we wait for the upstream, `rest` that we do not wait; the upstream's clocks stand
    still while a consumer is busy for long, the caller's deadline does not. When one runs out while we wait, the body's
    reader wakes up with `TimedOut`. Times are real ones: an event loop's own time stands while one task keeps it busy.
    """

    def __init__(self, content: aiohttp.StreamReader, clocks: Clocks, started: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._content = content
        self._total_at = started + clocks.total
        self._first_at = started + clocks.first_token
        self._deadline = clocks.deadline
        self._idle = clocks.idle
        self._in_content = False
        self._rested_at: float | None = None
        self._limit: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def content(self, came: bool) -> None:
        """From the first content event on, the idle clock runs instead of the first-token clock."""
        self._in_content = came

    def wait(self) -> None:
        """Raises `TimedOut` when a clock has run out already: an upstream that always has data never lets it ring."""
        now = time.monotonic()
        if self._rested_at is not None and now - self._rested_at > OWN_WORK_SECONDS:
            self._total_at += now - self._rested_at
            self._first_at += now - self._rested_at
        self._limit = min(now + self._idle if self._in_content else self._first_at, self._total_at, self._deadline)
        if now >= self._limit:
            raise self._ran_out(now)
        if self._timer is None or self._rings_at > self._limit:
            self._schedule(self._limit, now)

    def rest(self) -> None:
        self._limit = None
        self._rested_at = time.monotonic()

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
        if self._limit is None:
            return
        now = time.monotonic()
        if now < self._limit:
            self._schedule(self._limit, now)
        else:
            self._content.set_exception(self._ran_out(now))

    def _ran_out(self, now: float) -> TimedOut:
        if now >= min(self._total_at, self._deadline):
            phase = "total"
        else:
            phase = "idle" if self._in_content else "first_token"
        return TimedOut(TIMEOUT_WORDS[phase], phase=phase)


OWN_WORK_SECONDS: Final = 0.05
"""Pauses up to this are our own work between two reads, and not a consumer that is slow."""
LEAST_WAIT_SECONDS: Final = 0.001
TURN_SECONDS: Final = 0.005
"""How long one body may keep the event loop busy before the others have their turn."""
TIMEOUT_WORDS: Final[Mapping[str, str]] = {
    "first_token": "The upstream sent no content in time.",
    "idle": "The upstream stopped sending in the middle of its answer.",
    "total": "The upstream took longer in all than it may.",
}


class AiohttpTransport:
    """The transport over aiohttp: a pool of kept connections per upstream.

    `keepalive` (seconds) stays below what servers keep idle connections for (uvicorn: 5), so that a request is not
    sent into a connection that is just being closed.
    """

    def __init__(self, *, connect_timeout: float, keepalive: float = 4.0) -> None:
        self._connect_timeout = connect_timeout
        self._keepalive = keepalive
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:  # made on first use: a session belongs to the running loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=self._keepalive, socket_factory=_bounded_socket
                ),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=True,
                read_bufsize=READ_BUFFER_BYTES,
                skip_auto_headers=("User-Agent",),
            )
        return self._session

    @contextlib.asynccontextmanager
    async def send(self, call: Call, clocks: Clocks) -> AsyncIterator[Reply]:
        started = time.monotonic()
        response = await self._head(call, clocks, started)
        reply = AiohttpReply(response, Alarm(response.content, clocks, started))
        try:
            yield reply
        finally:
            reply.alarm.stop()
            if response.content.is_eof() and response.content.exception() is None:
                response.release()
            else:
                response.close()

    async def _head(self, call: Call, clocks: Clocks, started: float) -> aiohttp.ClientResponse:
        phase = "first_token" if clocks.first_token < clocks.total else "total"
        try:
            async with asyncio.timeout_at(started + min(clocks.first_token, clocks.total)):
                return await self._opened().request(
                    call.method, call.url, data=call.body, headers=call.headers, allow_redirects=False
                )
        except aiohttp.ClientError as error:
            raise_fault(error)
        except TimeoutError:
            raise TimedOut(TIMEOUT_WORDS[phase], phase=phase) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _bounded_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Left to itself, the kernel would take megabytes of an answer that its client does not read."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return made


class AiohttpReply:
    def __init__(self, response: aiohttp.ClientResponse, alarm: Alarm) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self.alarm = alarm
        self._content = response.content

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def more(self) -> bytes:
        self.alarm.wait()
        if time.monotonic() - asyncio.get_running_loop().time() > TURN_SECONDS:
            await asyncio.sleep(0)
        try:
            return await self._content.readany()
        except aiohttp.ClientError as error:
            raise_fault(error)
        finally:
            self.alarm.rest()

    async def read(self, limit: int = REPLY_BYTES_MAX) -> bytes:
        parts: list[bytes] = []
        size = 0
        while data := await self.more():
            size += len(data)
            if size > limit:
                raise BadReply(f"The upstream's reply is larger than {limit} bytes.")
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def raise_fault(error: aiohttp.ClientError) -> NoReturn:
    """What aiohttp says, as one of our errors. Its own words may hold addresses, so they stay in the chained cause."""
    match error:
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            raise Refused("The upstream accepts no connection.") from error
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError():
            raise Broken("The connection to the upstream broke.") from error
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            raise Refused("The upstream's address is not a URL we can use.") from error
        case _:
            raise BadReply("The upstream did not answer in HTTP as we know it.") from error
