"""`Idempotency-Key` around an endpoint: a request that was answered before gets the same bytes again, streams too.

It wraps what a request is received and sent by, so that endpoints know nothing of it, and a request without the header
costs one look-up. Which answers there are, and whose, is the affair of `app.access.idempotency`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from app.access.idempotency import ANSWER_BYTES, HEADER, Answer, Claim, Headers, Idempotency, asked_of, keepable
from app.api.auth import Door
from app.api.front import Endpoint
from app.api.inbound import Inbound, Message, Send, once_more
from app.core.tasks import cancel_if
from app.wire.chat.write import DONE

REPLAY: Final = b"x-tierway-idempotent-replay"
REQUEST_ID: Final = b"x-request-id"
OF_ITS_TIME: Final = (REQUEST_ID, b"openai-processing-ms", b"x-ratelimit-")
"""How the names begin of headers that tell of the moment and not of the answer."""
LATER_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""When to try again to keep an answer that the store did not take; its client has it already."""


@dataclass(frozen=True, slots=True)
class Idempotent:
    """The endpoint, with `Idempotency-Key`. A key whose content may not be stored goes without; its terms say so."""

    endpoint: Endpoint
    door: Door
    answers: Idempotency
    body_bytes: int

    def __call__(self, inbound: Inbound) -> Awaitable[None]:
        key = inbound.headers.get(HEADER)
        return self.endpoint(inbound) if key is None else self._once(inbound, key)

    async def _once(self, inbound: Inbound, key: bytes) -> None:
        if not keepable(caller := self.door.caller(inbound.headers, inbound.peer)):
            await self.endpoint(inbound)
            return
        body = await inbound.body(self.body_bytes)
        inbound.receive = once_more(body, inbound.receive)
        found = await self.answers.claim(asked_of(caller, key.strip(), inbound.scope["path"], inbound.headers, body))
        if isinstance(found, Answer):
            await _replay(inbound, found)
        else:
            await self._answer(inbound, found)

    async def _answer(self, inbound: Inbound, claim: Claim) -> None:
        recorder = Recorder(inbound.send, lambda answer: self.answers.keep(claim, answer))
        inbound.send = recorder.send
        async with cancel_if(self._renewing(claim), "idempotency"):
            try:
                await self.endpoint(inbound)
            finally:
                if not recorder.finished:
                    await self.answers.release(claim)
            for seconds in LATER_SECONDS:
                if recorder.kept or not recorder.finished:
                    break
                await asyncio.sleep(seconds)
                await recorder.keep()

    async def _renewing(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(self.answers.renew_seconds)
            await self.answers.renew(claim)


class Recorder:
    """Passes a reply on and notes it. A whole good one is kept before its client sees the end of it, so that whoever
    has seen that can have it again."""

    def __init__(self, send: Send, keep: Callable[[Answer | None], Awaitable[bool]]) -> None:
        self._send = send
        self._keep = keep
        self._status = 0
        self._headers: Headers = ()
        self._parts: list[bytes] = []
        self._size = 0
        self.finished = self.kept = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], tuple(message["headers"])
        elif 200 <= self._status < 300:
            await self._note(message["body"], message["more_body"])
        await self._send(message)

    async def _note(self, data: bytes, more: bool) -> None:
        self._size += len(data)
        self._parts.append(data)
        if self._size > ANSWER_BYTES:
            self._parts = [b"".join(self._parts)[-len(DONE) :]]
        if not more and self._is_whole():
            self.finished = True
            await self.keep()

    async def keep(self) -> None:
        answer = Answer(self._status, self._headers, b"".join(self._parts))
        self.kept = await self._keep(None if self._size > ANSWER_BYTES else answer)

    def _is_whole(self) -> bool:
        """A stream that failed on its way ends without the word that ends a good one."""
        streamed = dict(self._headers).get(b"content-type", b"").startswith(b"text/event-stream")
        return not streamed or b"".join(self._parts[-2:]).endswith(DONE)


async def _replay(inbound: Inbound, answer: Answer) -> None:
    """The same bytes; the headers say of which request they were the answer."""
    headers = [row for row in answer.headers if not row[0].startswith(OF_ITS_TIME)]
    first = dict(answer.headers).get(REQUEST_ID, b"")
    await inbound.begin(answer.status, [(REQUEST_ID, inbound.request_id.encode()), *headers, (REPLAY, first)])
    await inbound.write(answer.body)
