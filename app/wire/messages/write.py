"""Writes an answer as Anthropic's Messages API gives it: named events, or one message.

Anthropic sends one content block after the other, while neutral events may mix the pieces of several tool calls. So
the first call is passed on as it comes, and what does not belong to it waits until the answer is finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from app.core.events import Answer, Call, Choice, Event, Fault, Finish, Reasoning, Start, Text, ToolCall, Usage
from app.core.money import Tokens
from app.core.request import Request
from app.wire.messages.errors import write_error
from app.wire.messages.read import DIALECT

_STOP: Final[Mapping[str, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_OWN_WORDS: Final = frozenset({"stop_sequence", "pause_turn", "model_context_window_exceeded"})
_NOTHING: Final = Tokens()

Piece = Text | Reasoning | ToolCall


def writer(request: Request) -> MessagesWriter:
    return MessagesWriter()


class MessagesWriter:
    """Satisfies `Writer`. Of several choices only the first is written: there is no place for others."""

    def __init__(self) -> None:
        self._blocks = 0
        self._open: object = None  # what kind of block is open; of tool calls, the number
        self._waiting: list[Piece] = []
        self._refusal: list[str] = []
        self._finish: Finish | None = None
        self._usage: Usage | None = None
        self._failed = False

    def write(self, event: Event) -> bytes:
        match event:
            case Start():
                return _event("message_start", {"message": _head(event)})
            case Text() | Reasoning() | ToolCall():
                return self._piece(event) if event.choice == 0 else b""
            case Finish():
                self._finish = self._finish or event
                return self._settle()
            case Usage():
                self._usage = event
            case Fault():
                self._failed = True
                return b"event: error\ndata: " + write_error(event.error) + b"\n\n"
        return b""

    def end(self) -> bytes:
        if self._failed or self._finish is None:
            return b""
        delta = _ending(self._finish, "".join(self._refusal) or None)
        usage = _usage(self._usage)
        return _event("message_delta", {"delta": delta, "usage": usage}) + _event("message_stop", {})

    def _piece(self, piece: Piece) -> bytes:
        if isinstance(piece, Text):
            if piece.refusal:
                self._refusal.append(piece.text)
            if piece.refusal or not piece.text:
                return b""
        if type(self._open) is int and not (isinstance(piece, ToolCall) and piece.call == self._open):
            self._waiting.append(piece)
            return b""
        return self._now(piece)

    def _settle(self) -> bytes:
        """Everything that waited: whole calls in their order, then the rest, as it came."""
        calls = sorted((piece for piece in self._waiting if isinstance(piece, ToolCall)), key=lambda piece: piece.call)
        rest = [piece for piece in self._waiting if not isinstance(piece, ToolCall)]
        self._waiting = []
        return b"".join(map(self._now, [*calls, *rest])) + self._close()

    def _now(self, piece: Piece) -> bytes:
        match piece:
            case Text():
                opened = self._switch("text", {"type": "text", "text": ""})
                return opened + self._delta({"type": "text_delta", "text": piece.text})
            case ToolCall():
                block = {"type": "tool_use", "id": piece.id or "", "name": piece.name or "", "input": {}}
                opened = self._switch(piece.call, block)
                if not piece.arguments:
                    return opened
                return opened + self._delta({"type": "input_json_delta", "partial_json": piece.arguments})
            case Reasoning():
                return self._thinking(piece)

    def _thinking(self, piece: Reasoning) -> bytes:
        if piece.redacted is not None:
            block = {"type": "redacted_thinking", "data": piece.redacted}
            return self._switch("redacted", block) + self._close()
        written = self._switch("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        if piece.text:
            written += self._delta({"type": "thinking_delta", "thinking": piece.text})
        if piece.signature is None:
            return written
        return written + self._delta({"type": "signature_delta", "signature": piece.signature}) + self._close()

    def _switch(self, kind: object, block: dict[str, Any]) -> bytes:
        if self._open == kind:
            return b""
        closed = self._close()
        self._open = kind
        return closed + _event("content_block_start", {"index": self._blocks, "content_block": block})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": self._blocks, "delta": delta})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        self._blocks += 1
        return _event("content_block_stop", {"index": self._blocks - 1})


def write_reply(answer: Answer, request: Request) -> bytes:
    """The whole answer as one message; the upstream's own where it spoke this dialect."""
    if answer.start.dialect == DIALECT and answer.start.body is not None:
        return orjson.dumps(answer.start.body)
    choice = answer.choices[0] if answer.choices else Choice(0)
    finish = Finish(choice.finish or "stop", detail=choice.detail, extra=choice.finish_extra)
    message = {
        **_head(answer.start),
        "content": _content(choice),
        **_ending(finish, choice.refusal),
        "usage": _usage(answer.usage),
    }
    return orjson.dumps(message)


def _content(choice: Choice) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for thought in choice.thoughts:
        if thought.redacted is not None:
            blocks.append({"type": "redacted_thinking", "data": thought.redacted})
        else:
            blocks.append({"type": "thinking", "thinking": thought.text, "signature": thought.signature or ""})
    if choice.text:
        blocks.append({"type": "text", "text": choice.text})
    calls = ({"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call)} for call in choice.calls)
    return [*blocks, *calls]


def _input(call: Call) -> dict[str, Any]:
    """The arguments as an object. What a model wrote or left half-written that is none is shown as it is."""
    try:
        value = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"invalid_json": call.arguments}


def _event(kind: str, fields: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def _head(start: Start) -> dict[str, Any]:
    return {
        "id": start.id if start.id.startswith("msg_") else f"msg_{start.id}",
        "type": "message",
        "role": "assistant",
        "model": start.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(None),
    }


def _ending(finish: Finish, refusal: str | None) -> dict[str, Any]:
    sequence = (finish.extra or {}).get("stop_reason")
    reason = finish.detail if finish.detail in _OWN_WORDS else _STOP.get(finish.reason, "end_turn")
    if isinstance(sequence, str) and reason == "end_turn":
        reason = "stop_sequence"
    ending: dict[str, Any] = {"stop_reason": reason, "stop_sequence": sequence if reason == "stop_sequence" else None}
    if reason == "refusal":
        ending["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal}
    return ending


def _usage(usage: Usage | None) -> dict[str, Any]:
    """Tokens as Anthropic counts them: what was read from or written to the cache is no part of the input."""
    tokens = _NOTHING if usage is None else usage.tokens
    written: dict[str, Any] = {
        "input_tokens": max(0, tokens.prompt - tokens.cache_read - tokens.cache_write),
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write - tokens.cache_write_1h,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "output_tokens": tokens.completion,
    }
    if tokens.reasoning:
        written["output_tokens_details"] = {"thinking_tokens": tokens.reasoning}
    return written
