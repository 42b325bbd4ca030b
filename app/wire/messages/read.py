"""Reads Claude's replies: the events of a stream, or a whole JSON message, which is read as the stream it stands for.

Events, blocks and deltas of unknown types are passed over, as the API's versioning allows new ones. Blocks of tools
that run at Anthropic's are no part of the answer; what they found comes as citations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from app.core.card import Card
from app.core.errors import BadReply, GatewayError, Incomplete
from app.core.events import Event, Finish, Reasoning, Start, Text, ToolCall, Usage
from app.core.money import Tokens
from app.core.request import Request
from app.wire.codec import Outgoing
from app.wire.fields import token_count
from app.wire.messages.errors import error_in, parse
from app.wire.sse import SseDecoder

DIALECT: Final = "messages"
FINISH: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
PLAIN_REASONS: Final = frozenset({"end_turn", "max_tokens", "tool_use", "refusal"})
"""Stop reasons that the neutral finish says as well."""

_TIERS: Final[Mapping[str, str]] = {"standard": "default", "priority": "priority", "batch": "batch"}
_LONG_MARKER: Final = b'"ttl":"1h"'
_COUNTS: Final = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class MessagesReader:
    """Satisfies `Reader`. One error is enough: what came before it is given out first, then it is raised."""

    def __init__(self, request: Request, card: Card, outgoing: Outgoing) -> None:
        self._sse = SseDecoder()
        self._message = _MessageReader(request, card, outgoing)
        self._error: GatewayError | None = None

    @property
    def over(self) -> bool:
        return self._message.done

    def feed(self, data: bytes) -> list[Event]:
        if self._error is not None:
            raise self._error
        events: list[Event] = []
        try:
            for _, frame in self._sse.feed(data):
                events += self._message.event(parse(frame))
        except GatewayError as error:
            if not events:
                raise
            self._error = error
        return events

    def end(self) -> list[Event]:
        if self._error is not None:
            raise self._error
        events: list[Event] = []
        for _, frame in self._sse.end():  # a last event without its blank line counts if it is whole
            with contextlib.suppress(BadReply):
                events += self._message.event(parse(frame))
        if not self._message.done:
            raise Incomplete("the upstream's stream ended before its message did")
        return events


def reader(request: Request, card: Card, outgoing: Outgoing) -> MessagesReader:
    return MessagesReader(request, card, outgoing)


def read_reply(body: bytes, request: Request, card: Card, outgoing: Outgoing) -> list[Event]:
    """The same events as a stream of that message adds up to."""
    message = parse(body)
    if message.get("type") == "error":
        raise error_in(message)
    content = message.get("content")
    if not isinstance(content, list):
        raise BadReply("the upstream's message has no content")
    whole = _MessageReader(request, card, outgoing)
    events = whole.event({"type": "message_start", "message": message})
    for index, block in enumerate(content):
        events += whole.event({"type": "content_block_start", "index": index, "content_block": block})
        events += whole.event({"type": "content_block_stop", "index": index})
    events += whole.event({"type": "message_delta", "delta": message, "usage": message.get("usage")})
    events += whole.event({"type": "message_stop"})
    if isinstance(events[0], Start):
        events[0].body = {**message, "model": card.name}
    return events


class _MessageReader:
    """What has come of one message. `_open` holds, per index, the block that is being sent."""

    def __init__(self, request: Request, card: Card, outgoing: Outgoing) -> None:
        self._request_id = request.id
        self._name = card.name
        self._originals: Mapping[str, str] = outgoing.memo or {}
        self._long = _LONG_MARKER in outgoing.body
        self._open: dict[Any, _Block] = {}
        self._calls = 0
        self._length = 0  # of the text so far
        self._usage: dict[str, Any] = {}
        self._stop: dict[str, Any] = {}
        self._started = False
        self.done = False
        self._handlers: Mapping[Any, Callable[[dict[str, Any]], list[Event]]] = {
            "content_block_delta": self._delta,
            "message_start": self._start,
            "content_block_start": self._block_start,
            "content_block_stop": self._block_stop,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
        }

    def event(self, event: dict[str, Any]) -> list[Event]:
        kind = event.get("type")
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        if handler is None:
            if (kind == "error" or (kind is None and event.get("error"))) and not self.done:
                raise error_in(event)
            return []
        if self.done:
            return []
        if not self._started and kind != "message_start":
            raise BadReply("the upstream's stream does not begin with a message")
        return handler(event)

    def _start(self, event: dict[str, Any]) -> list[Event]:
        message = _object(event, "message")
        if self._started:
            return []
        self._started = True
        self._count(message.get("usage"))
        id, tier = message.get("id"), self._usage.get("service_tier")
        tier = _TIERS.get(tier) if isinstance(tier, str) else None
        # When it was made the API does not say: the adapter, which has a clock, does.
        id = id if isinstance(id, str) and id else f"msg_{self._request_id}"
        return [Start(id, self._name, 0, DIALECT, service_tier=tier, prompt=self._prompt())]

    def _prompt(self) -> Tokens | None:
        tokens = tokens_of(self._usage, long=self._long)
        return replace(tokens, completion=0, reasoning=0) if tokens is not None and tokens.prompt else None

    def _block_start(self, event: dict[str, Any]) -> list[Event]:
        fields = _object(event, "content_block")
        make = _BLOCKS.get(str(fields.get("type")))
        if make is None:
            return []
        block = make(self)
        self._open[_index(event)] = block
        return block.start(fields)

    def _delta(self, event: dict[str, Any]) -> list[Event]:
        block = self._open.get(_index(event))
        return [] if block is None else block.delta(_object(event, "delta"))

    def _block_stop(self, event: dict[str, Any]) -> list[Event]:
        block = self._open.pop(_index(event), None)
        return [] if block is None else block.stop()

    def _message_delta(self, event: dict[str, Any]) -> list[Event]:
        delta = _object(event, "delta")
        self._count(event.get("usage"))
        if delta.get("stop_reason") is not None:
            self._stop = delta
        return []

    def _message_stop(self, event: dict[str, Any]) -> list[Event]:
        reason = self._stop.get("stop_reason")
        if not isinstance(reason, str):
            raise Incomplete("the upstream's message ended without saying why")
        self.done = True
        events = [event for block in self._open.values() for event in block.stop()]
        if reason == "refusal":
            events += _refusal(self._stop.get("stop_details"))
        events.append(_finish(reason, self._stop.get("stop_sequence")))
        tokens = tokens_of(self._usage, long=self._long)
        if tokens is not None:
            events.append(Usage(tokens, details=self._usage))
        return events

    def _count(self, usage: Any) -> None:
        """Counts are totals so far: the later one replaces the earlier. Null says nothing."""
        if isinstance(usage, dict):
            self._usage.update((name, value) for name, value in usage.items() if value is not None)

    # what the blocks ask of their message

    def next_call(self) -> int:
        self._calls += 1
        return self._calls - 1

    def original(self, id: str) -> str:
        return self._originals.get(id, id)

    def text(self, text: str) -> list[Event]:
        self._length += len(text)
        return [Text(text)] if text else []

    @property
    def length(self) -> int:
        return self._length


class _Block:
    """One content block: what its start, its pieces and its end mean."""

    def __init__(self, message: _MessageReader) -> None:
        self._message = message

    def start(self, fields: dict[str, Any]) -> list[Event]:
        raise AssertionError

    def delta(self, fields: dict[str, Any]) -> list[Event]:
        return []

    def stop(self) -> list[Event]:
        return []


class _TextBlock(_Block):
    """The citations of a block are known to hold for all of its text once it is over."""

    def start(self, fields: dict[str, Any]) -> list[Event]:
        self._from = self._message.length
        cited = fields.get("citations")
        self._cited: list[Any] = list(cited) if isinstance(cited, list) else []
        return self._message.text(_string(fields, "text"))

    def delta(self, fields: dict[str, Any]) -> list[Event]:
        match fields.get("type"):
            case "text_delta":
                return self._message.text(_string(fields, "text"))
            case "citations_delta":
                self._cited.append(fields.get("citation"))
        return []

    def stop(self) -> list[Event]:
        found = (annotation(each, self._from, self._message.length) for each in self._cited)
        annotations = [each for each in found if each is not None]
        return [Text("", extra={"annotations": annotations})] if annotations else []


class _ThinkingBlock(_Block):
    """Newer models show none of their thinking unless asked, only that they think. That is told at once, though it is
    empty: it may last for minutes, and a model at work must not be taken for one that does not answer."""

    def start(self, fields: dict[str, Any]) -> list[Event]:
        self._signature = _string(fields, "signature")
        return [Reasoning(_string(fields, "thinking"))]

    def delta(self, fields: dict[str, Any]) -> list[Event]:
        match fields.get("type"):
            case "thinking_delta":
                return [Reasoning(_string(fields, "thinking"))]
            case "signature_delta":
                self._signature += _string(fields, "signature")
        return []

    def stop(self) -> list[Event]:
        return [Reasoning("", signature=self._signature)] if self._signature else []


class _RedactedBlock(_Block):
    def start(self, fields: dict[str, Any]) -> list[Event]:
        return [Reasoning("", redacted=_string(fields, "data"))]


class _ToolBlock(_Block):
    """Calls are counted on their own: the index of a block counts texts and thinking too."""

    def start(self, fields: dict[str, Any]) -> list[Event]:
        self._call = self._message.next_call()
        id = self._message.original(_string(fields, "id"))
        given = fields.get("input")
        arguments = orjson.dumps(given).decode() if isinstance(given, dict) and given else ""
        self._empty = not arguments
        return [ToolCall(self._call, arguments, id, _string(fields, "name"))]

    def delta(self, fields: dict[str, Any]) -> list[Event]:
        piece = _string(fields, "partial_json") if fields.get("type") == "input_json_delta" else ""
        if not piece:
            return []
        self._empty = False
        return [ToolCall(self._call, piece)]

    def stop(self) -> list[Event]:
        return [ToolCall(self._call, "{}")] if self._empty else []


_BLOCKS: Final[Mapping[str, type[_Block]]] = {
    "text": _TextBlock,
    "thinking": _ThinkingBlock,
    "redacted_thinking": _RedactedBlock,
    "tool_use": _ToolBlock,
}


def _refusal(details: Any) -> list[Event]:
    told = (details.get(name) for name in ("explanation", "category")) if isinstance(details, dict) else ()
    text = next((each for each in told if isinstance(each, str) and each), None)
    return [] if text is None else [Text(text, refusal=True)]


def _finish(reason: str, sequence: Any) -> Finish:
    # `stop_reason` beside the finish reason is where vLLM puts the string that stopped it, too.
    extra = {"stop_reason": sequence} if reason == "stop_sequence" and isinstance(sequence, str) else None
    return Finish(FINISH.get(reason, "stop"), detail=None if reason in PLAIN_REASONS else reason, extra=extra)


def annotation(citation: Any, start: int, end: int) -> dict[str, Any] | None:
    """OpenAI's annotation for a citation of a web page; None for what has no address."""
    if not isinstance(citation, dict):
        return None
    url, title = citation.get("url", citation.get("source")), citation.get("title")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return None
    cited = {"url": url, "title": title if isinstance(title, str) else "", "start_index": start, "end_index": end}
    return {"type": "url_citation", "url_citation": cited}


def tokens_of(usage: Mapping[str, Any], *, long: bool = False) -> Tokens | None:
    """Tokens as OpenAI counts them: the prompt holds what was read from and written to the cache. None where input or
    output is not known. `long`: an hour in the cache was asked for; where it is not said how long what was written is
    kept, it is taken for that, which costs more."""
    fresh, completion, written, read = (token_count(usage, name) for name in _COUNTS)
    if fresh is None or completion is None:
        return None
    by_time, details = usage.get("cache_creation"), usage.get("output_tokens_details")
    minutes, hour = (token_count(by_time, f"ephemeral_{time}_input_tokens") for time in ("5m", "1h"))
    written = (minutes or 0) + (hour or 0) if written is None else written
    if hour is None:
        hour = max(0, written - (minutes or 0)) if long else 0
    read = read or 0
    thinking = token_count(details, "thinking_tokens") or 0
    return Tokens(
        prompt=fresh + written + read,
        completion=completion,
        cache_read=read,
        cache_write=written,
        cache_write_1h=min(hour, written),
        reasoning=min(thinking, completion),
    )


def _object(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if not isinstance(value, dict):
        raise BadReply(f"the upstream sent an event without its {name}")
    return value


def _string(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise BadReply(f"the upstream sent {name!r} as something else than text")
    return value


def _index(event: dict[str, Any]) -> int:
    value = event.get("index")
    if type(value) is not int:
        raise BadReply("the upstream sent a piece of content without its index")
    return value
