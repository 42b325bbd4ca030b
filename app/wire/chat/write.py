"""Events -> the bytes of a streamed OpenAI chat answer, as strictly as the strictest official client wants them.

Text that came from a server of this dialect goes out as the bytes it came in. Finish reasons are held back until usage
is known, because the last chunk says what the answer cost.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from app.core.events import Event, Fault, Finish, Reasoning, Start, Text, ToolCall, Usage
from app.core.request import Request
from app.wire.chat.objects import finish_fields, head
from app.wire.chat.tools import is_legacy
from app.wire.chat.usage import write_usage
from app.wire.objects import tierway, write_error

DONE: Final = b"data: [DONE]\n\n"


def writer(request: Request) -> ChatWriter:
    return ChatWriter(request)


class ChatWriter:
    """One streamed answer."""

    def __init__(self, request: Request) -> None:
        self._n = request.n
        self._include_usage = request.include_usage
        self._legacy = request.dialect == "chat" and is_legacy(request.body)
        self._start: Start | None = None
        self._raw = False
        self._head = b""
        self._finishes: list[Finish] = []
        self._late: dict[int, dict[str, Any]] = {}  # per choice: lists that clients take only once
        self._thought: dict[int, list[str]] = {}
        self._over = False

    def write(self, event: Event) -> bytes:
        match event:
            case Text():
                return self._text(event)
            case Reasoning():
                return self._reasoning(event)
            case ToolCall():
                return self._call(event)
            case Start():
                return self._begin(event)
            case Finish():
                self._finishes.append(event)
                late = self._late.pop(event.choice, None)
                return self._delta(event.choice, late) if late else b""
            case Usage():
                return self._close(event)
            case Fault():
                self._over = True
                return b"data: " + write_error(event.error) + b"\n\n"

    def end(self) -> bytes:
        if self._over:
            return b""
        # A stream of nothing at all has no finish to close with.
        closing = self._close(None) if self._finishes else b""
        self._over = True
        return closing + DONE

    def _begin(self, start: Start) -> bytes:
        self._start = start
        simulated = start.served is not None and start.served.simulated
        self._raw = start.dialect == "chat" and not simulated
        fields = head(start, "chat.completion.chunk")
        self._head = b"data: " + orjson.dumps(fields)[:-1] + b',"choices":['
        # The role goes out for every choice in order: official clients cannot take choice 1 before choice 0.
        role = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._delta(choice, role) for choice in range(self._n))

    def _chunk(self, choices: bytes, **last: Any) -> bytes:
        fields = dict(last)
        if self._include_usage:
            fields.setdefault("usage", None)
        tail = b"]," + orjson.dumps(fields)[1:] if fields else b"]}"
        return self._head + choices + tail + b"\n\n"

    def _delta(self, choice: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None) -> bytes:
        return self._chunk(orjson.dumps({"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": None}))

    def _text(self, event: Text) -> bytes:
        if self._raw and event.raw is not None:
            return b"data: " + event.raw + b"\n\n"
        delta: dict[str, Any] = {}
        for name, value in (event.extra or {}).items():
            if type(value) is list:
                self._late.setdefault(event.choice, {}).setdefault(name, []).extend(value)
            else:
                delta[name] = value
        if event.text or event.logprobs:
            delta["refusal" if event.refusal else "content"] = event.text
        return self._delta(event.choice, delta, event.logprobs) if delta else b""

    def _reasoning(self, event: Reasoning) -> bytes:
        """Signed and opaque blocks go out whole before the finish; their text streams as it comes."""
        pieces = self._thought.setdefault(event.choice, [])
        if event.text:
            pieces.append(event.text)
        if event.signature is not None:
            thinking = {"type": "thinking", "thinking": "".join(pieces), "signature": event.signature}
            self._block(event.choice, thinking)
            pieces.clear()
        elif event.redacted is not None:
            self._block(event.choice, {"type": "redacted_thinking", "data": event.redacted})
        return self._delta(event.choice, {"reasoning_content": event.text}) if event.text else b""

    def _block(self, choice: int, block: dict[str, Any]) -> None:
        self._late.setdefault(choice, {}).setdefault("thinking_blocks", []).append(block)

    def _call(self, event: ToolCall) -> bytes:
        kind, text = ("custom", "input") if event.custom else ("function", "arguments")
        first = event.name is not None
        inner = {"name": event.name, text: event.arguments} if first else {text: event.arguments}
        if self._legacy:
            # The old shape has room for one call.
            return self._delta(event.choice, {"function_call": inner}) if event.call == 0 else b""
        call: dict[str, Any] = {"index": event.call}
        if first:
            call |= {"id": event.id, "type": kind}
        return self._delta(event.choice, {"tool_calls": [{**call, kind: inner}]})

    def _close(self, usage: Usage | None) -> bytes:
        """Everything that was held back. The very last chunk says what the answer came to."""
        start = self._start
        finishes, self._finishes = self._finishes, []
        if start is None:
            return b""
        about = tierway(start.served, usage)
        last: dict[str, Any] = {"tierway": about} if about else {}
        chunks = [self._finish(finish) for finish in finishes]
        if self._include_usage and usage is not None:
            total = write_usage(usage, start.dialect)
            return b"".join(self._chunk(chunk) for chunk in chunks) + self._chunk(b"", usage=total, **last)
        return b"".join(self._chunk(chunk) for chunk in chunks[:-1]) + b"".join(
            self._chunk(chunk, **last) for chunk in chunks[-1:]
        )

    def _finish(self, finish: Finish) -> bytes:
        assert self._start is not None, "a stream of events begins with Start"
        reason = "function_call" if self._legacy and finish.reason == "tool_calls" else finish.reason
        extra = (finish.extra or {}) if self._start.dialect == "chat" else {}
        fields = finish_fields(reason, finish.detail)
        return orjson.dumps({"index": finish.choice, "delta": {}, "logprobs": None, **fields, **extra})
