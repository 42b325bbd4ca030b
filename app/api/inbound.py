"""One request as the socket gave it, before it is understood: headers by name, the body within bounds, the id."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from app.core.entropy import random_bytes
from app.core.errors import ClientGone, InvalidValue, RequestTimeout, RequestTooLarge
from app.core.leaving import CancelledBy
from app.core.secret import holds_key
from app.core.steps import Steps
from app.core.tasks import cancel_if

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Headers = list[tuple[bytes, bytes]]
Send = Callable[[Message], Awaitable[None]]

ABORT: Final = "tierway.abort"
"""The ASGI extension under which our server offers to cut the connection."""
WAITING: Final = "tierway.waiting"
"""That under which it tells how many bytes the client has not taken yet."""
LEAVING: Final = "tierway.leaving"
"""That under which it takes whom to call when the client leaves."""
STALL_SECONDS: Final = 30.0
TRICKLE_BYTES_PER_SECOND: Final = 8_192
DRAIN_SECONDS: Final = 5.0
DRAIN_FACTOR: Final = 4
LENGTH_DIGITS_MAX: Final = 18
SAFE_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True)
class Inbound:
    """`headers` have lower-case names; of a repeated header the last counts. `started` is in loop seconds. `answered`:
    a status has gone out, so that no other can. `taken`: the gateway has the request, and records it. `trace_parent` is
    its place in its trace, where traces are made, and `steps` its notes for it, where this one is."""

    scope: Scope
    receive: Receive
    send: Send
    headers: Mapping[bytes, bytes]
    request_id: str
    started: float
    answered: bool = False
    taken: bool = False
    trace_parent: str | None = None
    steps: Steps | None = None

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> Inbound:
        headers = dict(scope["headers"])
        return cls(scope, receive, send, headers, request_id_of(headers), asyncio.get_running_loop().time())

    def header(self, name: bytes) -> str | None:
        """As UTF-8, which clients send today; else as HTTP's old Latin-1, in which nothing is wrong."""
        value = self.headers.get(name)
        if value is None:
            return None
        try:
            return value.decode().strip()
        except UnicodeDecodeError:
            return value.decode("latin-1").strip()

    @property
    def peer(self) -> str:
        return peer_of(self.scope)

    async def begin(self, status: int, headers: Headers) -> None:
        """Sends the head of the reply."""
        self.answered = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    def write(self, data: bytes, *, more: bool = False) -> Awaitable[None]:
        """Sends (the last) bytes of the body; done once the socket has taken them."""
        return self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def gone(self) -> None:
        """Returns when the client has left. To be awaited after the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def while_here(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Raises `Watched` out of its body when the client leaves. To be used after the request's body was read."""
        notice = self.scope.get("extensions", {}).get(LEAVING)
        return cancel_if(self.gone(), "client") if notice is None else CancelledBy(notice, "client")

    def waiting(self) -> int | None:
        """Bytes that were sent and the client has not taken yet; None where nobody can tell."""
        told = self.scope.get("extensions", {}).get(WAITING)
        return None if told is None else int(told())

    def abort(self) -> None:
        """Cuts the connection of a client that takes nothing."""
        if (cut := self.scope.get("extensions", {}).get(ABORT)) is not None:
            cut()

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises `RequestTooLarge`, `RequestTimeout` for one that stalls or drips, `ClientGone`."""
        if (encoding := self.header(b"content-encoding")) not in (None, "", "identity"):
            raise InvalidValue(f"Bodies with content-encoding {encoding!r} are not read; send it as it is.")
        if _declared(self.headers) > limit:  # who waits for a word before sending gets this one at once
            raise await self._too_large(limit, more=self.header(b"expect") is None)
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(STALL_SECONDS) as clock:
                while more and size <= limit:
                    message = await self.receive()
                    if message["type"] != "http.request":
                        raise ClientGone("The client left while sending its request.")
                    parts.append(message.get("body", b""))
                    size, more = size + len(parts[-1]), message.get("more_body", False)
                    if more:
                        clock.reschedule(self._patience(size))
        except TimeoutError:
            raise RequestTimeout("The body of the request did not arrive in time.") from None
        if size > limit:
            raise await self._too_large(limit, more)
        return b"".join(parts)

    def _patience(self, size: int) -> float:
        """Until when the next piece must come: soon, and not so late that the whole would be a trickle."""
        now = asyncio.get_running_loop().time()
        return min(now, self.started + size / TRICKLE_BYTES_PER_SECOND) + STALL_SECONDS

    async def _too_large(self, limit: int, more: bool) -> RequestTooLarge:
        """Reads on for a while before refusing: most clients look for an answer only after they have sent all."""
        left = DRAIN_FACTOR * limit
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while more and left > 0:
                    message = await self.receive()
                    left -= len(message.get("body", b""))
                    more = message.get("more_body", False)
        return RequestTooLarge(f"The body is larger than {limit} bytes.")


def once_more(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read already, then what comes after it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return waiting.pop() if waiting else await receive()

    return received


def peer_of(scope: Scope) -> str:
    """The address at the other end of the connection, whatever headers claim; empty on a Unix socket."""
    return str((scope.get("client") or ("",))[0])


def _declared(headers: Mapping[bytes, bytes]) -> int:
    value = headers.get(b"content-length", b"")
    if not value.isdigit():
        return 0
    return int(value) if len(value) <= LENGTH_DIGITS_MAX else sys.maxsize


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's own id where it can safely be repeated in headers and logs, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and SAFE_ID.fullmatch(text := given.decode("latin-1")) and not holds_key(text):
        return text
    return f"req_{random_bytes(16).hex()}"
