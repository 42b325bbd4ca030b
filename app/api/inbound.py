"""One request as the socket gave it, before it is understood: headers by name, the body within bounds, the id."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from app.core.errors import ClientGone, InvalidValue, RequestTimeout, RequestTooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Headers = list[tuple[bytes, bytes]]
Send = Callable[[Message], Awaitable[None]]

ABORT: Final = "tierway.abort"
"""The ASGI extension under which our server offers to cut the connection."""
BODY_TIMEOUT_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 5.0
DRAIN_FACTOR: Final = 4
SAFE_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True)
class Inbound:
    """`headers` have lower-case names; of a repeated header the last counts. `started` is in loop seconds. `answered`:
    a status has gone out, so that no other can."""

    scope: Scope
    receive: Receive
    send: Send
    headers: Mapping[bytes, bytes]
    request_id: str
    started: float
    answered: bool = False

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> Inbound:
        headers = dict(scope["headers"])
        return cls(scope, receive, send, headers, _request_id(headers), asyncio.get_running_loop().time())

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1").strip()

    async def begin(self, status: int, headers: Headers) -> None:
        """Sends the head of the reply."""
        self.answered = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, *, more: bool = False) -> None:
        """Sends (the last) bytes of the body; returns once the socket has taken them."""
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def gone(self) -> None:
        """Returns when the client has left. To be awaited after the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def abort(self) -> None:
        """Cuts the connection of a client that takes nothing."""
        if (cut := self.scope.get("extensions", {}).get(ABORT)) is not None:
            cut()

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises `RequestTooLarge`, `RequestTimeout` for one that stalls, `ClientGone`."""
        if (encoding := self.header(b"content-encoding")) not in (None, "", "identity"):
            raise InvalidValue(f"Bodies with content-encoding {encoding!r} are not read; send it as it is.")
        if _declared(self.headers) > limit:
            raise await self._too_large(limit)
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            return self._within(message.get("body", b""), limit)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SECONDS) as clock:
                while True:
                    if message["type"] != "http.request":
                        raise ClientGone("The client left while sending its request.")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise await self._too_large(limit)
                    if not message.get("more_body"):
                        return b"".join(parts)
                    clock.reschedule(asyncio.get_running_loop().time() + BODY_TIMEOUT_SECONDS)
                    message = await self.receive()
        except TimeoutError:
            raise RequestTimeout("The body of the request did not arrive in time.") from None

    def _within(self, body: bytes, limit: int) -> bytes:
        if len(body) > limit:
            raise _too_large_error(limit)
        return body

    async def _too_large(self, limit: int) -> RequestTooLarge:
        """Reads on for a while before refusing: most clients look for an answer only after they have sent all."""
        size = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while size < DRAIN_FACTOR * limit:
                    message = await self.receive()
                    size += len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body"):
                        break
        except TimeoutError:
            pass
        return _too_large_error(limit)


def _too_large_error(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {limit} bytes.")


def _declared(headers: Mapping[bytes, bytes]) -> int:
    value = headers.get(b"content-length", b"")
    return int(value) if value.isdigit() else 0


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """The caller's own id where it can safely be repeated in headers and logs, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and SAFE_ID.fullmatch(text := given.decode("latin-1")):
        return text
    return f"req_{uuid.uuid4().hex}"
