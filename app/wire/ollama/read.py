"""Reads what Ollama's `/api/chat` answers: lines of JSON, or one object that is the whole answer.

One object is handled like the only line of a stream, so both add up to the same answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from app.core.card import Card
from app.core.errors import BadReply, GatewayError, Incomplete, ServerFault, Truncated
from app.core.events import Event, Finish, Reasoning, Start, Text, ToolCall, Usage, is_content
from app.core.money import Tokens
from app.core.request import Request
from app.core.tokens import estimate
from app.wire.codec import Outgoing
from app.wire.fields import parse, token_count
from app.wire.lines import LineSplitter
from app.wire.ollama.faults import fault
from app.wire.ollama.window import ran_out, was_cut

COUNTS: Final = (
    "prompt_eval_count",
    "prompt_eval_cached_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
    "load_duration",
    "total_duration",
)
_NOTHING_SAID: Final = frozenset({"load", "unload"})  # the reply to a request that only moves a model
_ORDERLY: Final = frozenset({"stop", "length", ""})


def reader(request: Request, card: Card, outgoing: Outgoing) -> OllamaReader:
    return OllamaReader(request, card, outgoing)


def read_reply(body: bytes, request: Request, card: Card, outgoing: Outgoing) -> list[Event]:
    """The events of a whole reply. Raises `Truncated` when it evaluated less than it was sent."""
    answer = _Answer(request, card, outgoing.memo)
    events = answer.line(body)
    if not answer.done:
        raise Incomplete("the upstream's reply does not say that it is finished")
    return events


class OllamaReader:
    """A stream of lines. An error that arrives together with content is raised only after the content was given."""

    def __init__(self, request: Request, card: Card, outgoing: Outgoing) -> None:
        self._lines = LineSplitter()
        self._answer = _Answer(request, card, outgoing.memo)
        self._fault: GatewayError | None = None

    @property
    def over(self) -> bool:
        return self._answer.done

    def feed(self, data: bytes) -> list[Event]:
        return self._read(self._lines.feed(data))

    def end(self) -> list[Event]:
        events = self._read(self._lines.end())
        if not self._answer.done:
            raise Incomplete("the upstream's stream ended before its answer did")
        return events

    def _read(self, lines: list[bytes]) -> list[Event]:
        if self._fault is not None:
            raise self._fault
        events: list[Event] = []
        for line in lines:
            if self._answer.done:
                break
            try:
                events += self._answer.line(line)
            except GatewayError as error:
                self._fault = error
                if not any(map(is_content, events)):
                    raise
                break
        return events


class _Answer:
    """What has been read of one answer."""

    def __init__(self, request: Request, card: Card, sent_bytes: int) -> None:
        self._request = request
        self._card = card
        self._sent_bytes = sent_bytes
        self._started = False
        self._content = False  # of earlier lines
        self._text_bytes: int | None = None  # None: no text came
        self._call_ids: set[str] = set()
        self.done = False

    def line(self, line: bytes) -> list[Event]:
        """The events of one line."""
        reply = _object(line)
        if error := reply.get("error"):
            raise fault(error)
        events: list[Event] = []
        if not self._started:
            self._started = True
            events.append(self._start(reply))
        content: list[Event] = []
        message = reply.get("message")
        if isinstance(message, dict):
            self._message(message, reply, content)
        elif message is not None:
            raise BadReply("the upstream's message is not an object")
        events += content
        if reply.get("done") is True:
            self._end(reply, events)
        self._content = self._content or bool(content)
        return events

    def _start(self, reply: Mapping[str, Any]) -> Start:
        return Start(f"chatcmpl-{self._request.id}", self._card.name, seconds(reply.get("created_at")), "ollama")

    def _message(self, message: Mapping[str, Any], reply: Mapping[str, Any], events: list[Event]) -> None:
        if thinking := _text(message, "thinking"):
            events.append(Reasoning(thinking))
        if text := _text(message, "content"):
            self._text_bytes = (self._text_bytes or 0) + len(text)
            events.append(Text(text, logprobs=self._logprobs(reply)))
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            events += [self._call(call) for call in calls]
        elif calls is not None:
            raise BadReply("the upstream's tool calls are not a list")

    def _call(self, call: Any) -> ToolCall:
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            raise BadReply("the upstream's tool call has no name")
        position = len(self._call_ids)
        return ToolCall(position, _arguments(function.get("arguments")), self._call_id(call.get("id")), name)

    def _call_id(self, given: Any) -> str:
        """The upstream's id; where it gives none, or the same twice, one that no other turn will have."""
        id_ = given if isinstance(given, str) and given and given not in self._call_ids else None
        if id_ is None:
            seed = f"{self._request.id} {len(self._call_ids)}".encode()
            id_ = f"call_{hashlib.blake2b(seed, digest_size=12).hexdigest()}"
        self._call_ids.add(id_)
        return id_

    def _logprobs(self, reply: Mapping[str, Any]) -> dict[str, Any] | None:
        if self._request.logprobs is None or (tokens := reply.get("logprobs")) is None:
            return None
        if not isinstance(tokens, list):
            raise BadReply("the upstream's logprobs are not a list")
        return {"content": [_token(token) for token in tokens], "refusal": None}

    def _end(self, reply: Mapping[str, Any], events: list[Event]) -> None:
        self.done = True
        word = reply.get("done_reason")
        reason = word if isinstance(word, str) else ""
        spoken = self._content or any(map(is_content, events))
        if reason in _NOTHING_SAID and not spoken:
            raise ServerFault("the upstream only loaded the model and answered nothing")
        usage = self._usage(reply, reason, spoken)
        if self._text_bytes is None and not self._call_ids:
            events.append(Text(""))
        finish = "length" if reason == "length" else "tool_calls" if self._call_ids else "stop"
        events.append(Finish(finish, detail=None if reason in _ORDERLY else reason))
        events.append(usage)

    def _usage(self, reply: Mapping[str, Any], reason: str, spoken: bool) -> Usage:
        """Raises `Truncated` if part of the prompt was dropped and nothing of the answer has gone out yet. A count
        that is left out is zero where that can be, else not known."""
        prompt, completion = token_count(reply, "prompt_eval_count"), token_count(reply, "eval_count")
        cut = was_cut(self._card, self._sent_bytes, prompt, completion or 0)
        if cut and not self._content:
            raise Truncated("the upstream evaluated less than it was sent")
        tokens = Tokens(
            prompt=estimate(self._request.input_bytes) if prompt is None else prompt,
            completion=estimate(self._text_bytes or 0) if completion is None else completion,
            cache_read=min(token_count(reply, "prompt_eval_cached_count") or 0, prompt or 0),
        )
        full = reason == "length" and ran_out(self._card, prompt, completion or 0, self._request.max_tokens)
        return Usage(
            tokens,
            estimated=prompt is None or (completion is None and spoken),
            truncated=cut or full,
            details={name: reply[name] for name in COUNTS if name in reply},
        )


def _object(line: bytes) -> dict[str, Any]:
    try:
        reply = parse(line)
    except ValueError:
        raise BadReply("the upstream sent a line that is not JSON") from None
    if not isinstance(reply, dict):
        raise BadReply("the upstream sent JSON that is not an object")
    return reply


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if value is None or isinstance(value, str):
        return value or ""
    raise BadReply(f"the upstream's {name} is not a text")


def _arguments(value: Any) -> str:
    if value is None:
        return "{}"
    if isinstance(value, str):
        return value or "{}"
    if isinstance(value, dict):
        try:
            return orjson.dumps(value).decode()
        except orjson.JSONEncodeError:
            raise BadReply("the upstream's tool arguments are nested too deeply") from None
    raise BadReply("the upstream's tool arguments are not an object")


def _token(entry: Any) -> dict[str, Any]:
    """One token in OpenAI's shape."""
    token = entry.get("token") if isinstance(entry, dict) else None
    logprob = entry.get("logprob") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(token, str) or not isinstance(logprob, (int, float)):
        raise BadReply("the upstream's logprobs are not of the known shape")
    raw = entry.get("bytes")
    written = {"token": token, "logprob": logprob, "bytes": raw if isinstance(raw, list) else list(token.encode())}
    others = entry.get("top_logprobs")
    if others is None or isinstance(others, list):
        return {**written, "top_logprobs": [_alternative(other) for other in others or ()]}
    raise BadReply("the upstream's alternatives are not a list")


def _alternative(entry: Any) -> dict[str, Any]:
    alternative = _token(entry)
    del alternative["top_logprobs"]
    return alternative


def seconds(created: Any) -> int:
    """Seconds since 1970 of a time like 2026-08-21T10:00:00.123456789Z; 0 when it is none."""
    try:
        moment = datetime.fromisoformat(created)
    except (TypeError, ValueError):
        return 0
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp()))
