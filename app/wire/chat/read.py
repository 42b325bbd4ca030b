"""The streamed reply of an OpenAI-compatible server -> events.

Nearly every chunk is a piece of text that needs nothing but passing on; it keeps its bytes. Everything else is
normalised, because each server has its own idea of tool pieces, usage, finish reasons and errors.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Final

from app.core.card import Card
from app.core.clock import SystemClock
from app.core.errors import BadReply, GatewayError, Incomplete
from app.core.events import TOGETHER_MOST, Event, Start, Text, Usage
from app.core.request import Request
from app.wire.chat.choice import ChoiceReader
from app.wire.chat.usage import read_usage
from app.wire.codec import Outgoing
from app.wire.errors import error_from
from app.wire.fields import parse
from app.wire.sse import BETWEEN, SseDecoder

MAX_DEPTH: Final = 128
CONTENT: Final = b'"content"'
WRITTEN: Final = re.compile(rb"[ !#-\[\]-~]+")
"""Nearly every text that is written as it is."""
_CLOCK: Final = SystemClock()


def reader(request: Request, card: Card, outgoing: Outgoing) -> ChatReader:
    return ChatReader(request, card)


def parse_object(payload: bytes) -> dict[str, Any]:
    """A JSON object of the upstream's."""
    try:
        value = parse(payload, MAX_DEPTH)
    except ValueError:
        raise BadReply("the upstream sent something that is not JSON") from None
    if type(value) is not dict:
        raise BadReply("the upstream sent JSON that is not an object")
    return value


def error_in(reply: dict[str, Any]) -> GatewayError | None:
    """The error that a reply with status 200 holds, in any of the shapes in use."""
    error = reply.get("error")
    if error:
        return error_from(error)
    if reply.get("object") == "error":
        return error_from(reply)
    if "choices" not in reply and reply.get("detail"):
        return error_from(reply["detail"])
    return None


def start_of(reply: dict[str, Any], request: Request, card: Card) -> Start:
    """Model is always ours: some servers echo what was asked, or a path."""
    reply_id, created = reply.get("id"), reply.get("created")
    fingerprint, tier = reply.get("system_fingerprint"), reply.get("service_tier")
    return Start(
        id=reply_id if type(reply_id) is str and reply_id else f"chatcmpl-{request.id}",
        model=card.name,
        created=created if type(created) is int and created > 0 else int(_CLOCK.now()),
        dialect="chat",
        fingerprint=fingerprint if type(fingerprint) is str else None,
        service_tier=tier if type(tier) is str else None,
    )


def choice_index(value: Any, default: int, request: Request) -> int:
    """Which choice it is. One that was not asked for has no place in the answer."""
    index = default if value is None else value
    if type(index) is int and 0 <= index < request.n:
        return index
    raise BadReply("the index of a choice is not what it must be")


Frame = tuple[bytes, bytes, int]
"""What a chunk is before and after its text, and the index of its choice."""


def is_verbatim(text: str) -> bool:
    """Whether JSON writes it as it is: a string that goes on to the next quote."""
    return text.isprintable() and '"' not in text and "\\" not in text


def is_written(piece: bytes) -> bool:
    """Whether these bytes of JSON are some text, written as it is."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return False
    return text != "" and is_verbatim(text)


def frame_of(payload: bytes, text: Text) -> Frame | None:
    """What a plain chunk is around its text. Between the same bytes only text can stand, as long as it is verbatim."""
    if payload.count(CONTENT) != 1 or not is_verbatim(text.text):
        return None
    before, _, rest = payload.partition(CONTENT)
    opening, quote, rest = rest.partition(b'"')
    written = text.text.encode()
    if opening.strip() != b":" or not rest.startswith(written + b'"'):
        return None
    return before + CONTENT + opening + quote, rest[len(written) :], text.choice


class ChatReader:
    """A failure after events of the same bytes is raised on the next call, so that those events are not lost."""

    def __init__(self, request: Request, card: Card) -> None:
        self._request = request
        self._card = card
        self._decoder = SseDecoder()
        self._start: Start | None = None
        self._choices: dict[int, ChoiceReader] = {}
        self._usage: Usage | None = None
        self.over = False
        self._failed: GatewayError | None = None
        self._frame: Frame | None = None

    def feed(self, data: bytes) -> list[Event]:
        if self._failed is not None:
            raise self._failed
        single = None if self._frame is None or self.over else self._decoder.single(data)
        if single is not None and (text := self._alike([single], 0)) is not None:
            return [text]
        events: list[Event] = []
        try:
            self._payloads([payload for _, payload in self._decoder.feed(data)], events)
        except GatewayError as error:
            self._failed = error
            if not events:
                raise
        return events

    def end(self) -> list[Event]:
        if self._failed is not None:
            raise self._failed
        events: list[Event] = []
        # Cut in the middle of an event: harmless once every choice has its finish.
        with contextlib.suppress(BadReply):
            self._payloads([payload for _, payload in self._decoder.end()], events)
        if not self._choices or not all(choice.finished for choice in self._choices.values()):
            raise Incomplete("the upstream's answer ended without a finish reason")
        if self._usage is not None:
            events.append(self._usage)
        return events

    def _payloads(self, payloads: list[bytes], events: list[Event]) -> None:
        at = 0
        while at < len(payloads) and not self.over:
            text = self._alike(payloads, at)
            if text is None:
                self._payload(payloads[at], events)
            else:
                events.append(text)
            at += 1 if text is None else text.pieces

    def _payload(self, payload: bytes, events: list[Event]) -> None:
        if payload == b"[DONE]":
            self.over = True
            return
        chunk = parse_object(payload)
        text = self._plain(chunk, payload)
        if text is None:
            self._chunk(chunk, events)
        else:
            self._frame = frame_of(payload, text) or self._frame
            events.append(text)

    def _alike(self, payloads: list[bytes], at: int) -> Text | None:
        """One event of all chunks from there on that differ from the last plain one in their text alone, without
        parsing them again."""
        if self._frame is None:
            return None
        before, after, index = self._frame
        start, end = len(before), -len(after)
        pieces: list[bytes] = []
        for payload in payloads[at : at + TOGETHER_MOST]:
            piece = payload[start:end]
            if not (payload.startswith(before) and payload.endswith(after)):
                break
            if WRITTEN.fullmatch(piece) is None and not is_written(piece):
                break
            pieces.append(piece)
        if not pieces:
            return None
        count = len(pieces)
        raw = BETWEEN.join(payloads[at : at + count])
        return Text(b"".join(pieces).decode(), index, raw=raw, pieces=count)

    def _plain(self, chunk: dict[str, Any], payload: bytes) -> Text | None:
        """The event of a chunk that holds a piece of text and nothing that needs another look."""
        start, choices = self._start, chunk.get("choices")
        if type(choices) is not list or len(choices) != 1 or start is None:
            return None
        if chunk.get("model") != start.model or chunk.get("id") != start.id or chunk.get("created") != start.created:
            return None
        choice = choices[0]
        if type(choice) is not dict or chunk.get("usage") or chunk.get("error") or b"\n" in payload:
            return None
        delta, index = choice.get("delta"), choice.get("index")
        if type(delta) is not dict or choice.get("finish_reason") is not None or choice.get("logprobs") is not None:
            return None
        text = delta.get("content")
        if type(text) is not str or not text or type(index) is not int or index not in self._choices:
            return None
        if len(delta) > 1 and any(value for name, value in delta.items() if name != "content"):
            return None
        return Text(text, index, raw=payload)

    def _chunk(self, chunk: dict[str, Any], events: list[Event]) -> None:
        error = error_in(chunk)
        if error is not None:
            raise error
        if chunk.get("usage") is not None:
            # Running totals replace each other; the last word counts.
            self._usage = read_usage(chunk["usage"]) or self._usage
        choices = chunk.get("choices")
        if choices is None:
            return
        if type(choices) is not list:
            raise BadReply("'choices' of the reply is not an array")
        for choice in choices:
            if type(choice) is not dict:
                raise BadReply("a choice of the reply is not an object")
            if self._start is None:
                self._start = start_of(chunk, self._request, self._card)
                events.append(self._start)
            index = choice_index(choice.get("index"), 0, self._request)
            known = self._choices.get(index)
            if known is None:
                known = self._choices[index] = ChoiceReader(index, self._request)
            events += known.read(choice, choice.get("delta"))
