"""Writes an answer as Ollama's `/api/chat` gives it: the server's half of the wire, for fakes and tests.

Tool calls are whole there, so their pieces are gathered; counts of zero are left out, as Ollama does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from app.core.errors import GatewayError, InternalError
from app.core.events import Answer, Call, Event, Fault, Finish, Reasoning, Start, Text, ToolCall, Usage
from app.core.request import Request
from app.wire.ollama.read import COUNTS

_REASON_OF: Final[Mapping[str, str]] = {"length": "length"}
_DETAILS: Final = frozenset(COUNTS)
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999: dates end there


def writer(request: Request) -> OllamaWriter:
    return OllamaWriter()


class OllamaWriter:
    """Lines of JSON. The last one carries both the finish and the counts, so it waits for `end`."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {"model": "", "created_at": ""}
        self._calls: dict[int, Call] = {}
        self._finish: Finish | None = None
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Start():
                self._head = _head(event)
            case Text():
                return self._message({"content": event.text}, event.logprobs) if event.text else b""
            case Reasoning():
                return self._message({"content": "", "thinking": event.text}, None) if event.text else b""
            case ToolCall():
                call = self._calls.setdefault(event.call, Call(event.id or "", event.name or "", ""))
                call.arguments += event.arguments
            case Finish():
                self._finish = event
                return self._whole_calls()
            case Usage():
                self._usage = event
            case Fault():
                self._finish = None
                return write_error(event.error) + b"\n"
        return b""

    def end(self) -> bytes:
        if self._finish is None:
            return b""
        last = {**self._head, "message": _message({"content": ""}), **_done(self._finish, self._usage)}
        return orjson.dumps(last, option=orjson.OPT_APPEND_NEWLINE)

    def _whole_calls(self) -> bytes:
        if not self._calls:
            return b""
        ordered = [self._calls[index] for index in sorted(self._calls)]
        return self._message({"content": "", "tool_calls": _calls(ordered)}, None)

    def _message(self, fields: Mapping[str, Any], logprobs: Mapping[str, Any] | None) -> bytes:
        line = {**self._head, "message": _message(fields), "done": False}
        if logprobs and logprobs.get("content"):  # there are none of a refusal here
            line["logprobs"] = logprobs["content"]
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def write_reply(answer: Answer, request: Request) -> bytes:
    """The whole answer as one object; of several choices the first, since Ollama knows no others."""
    choice = answer.choices[0]
    fields: dict[str, Any] = {"content": choice.text or ""}
    if choice.reasoning:
        fields["thinking"] = choice.reasoning
    if choice.calls:
        fields["tool_calls"] = _calls(choice.calls)
    finish = Finish(choice.finish or "stop", detail=choice.detail)
    reply = {**_head(answer.start), "message": _message(fields), **_done(finish, answer.usage)}
    if choice.logprobs:
        reply["logprobs"] = choice.logprobs.get("content") or []
    return orjson.dumps(reply)


def write_error(error: GatewayError) -> bytes:
    return orjson.dumps({"error": error.message})


def _head(start: Start) -> dict[str, Any]:
    created = datetime.fromtimestamp(min(max(start.created, 0), _LAST_SECOND), UTC).isoformat().replace("+00:00", "Z")
    return {"model": start.model, "created_at": created}


def _message(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", **fields}


def _done(finish: Finish, usage: Usage | None) -> dict[str, Any]:
    done: dict[str, Any] = {"done": True, "done_reason": finish.detail or _REASON_OF.get(finish.reason, "stop")}
    if usage is not None:
        counts = {
            "prompt_eval_count": usage.tokens.prompt,
            "prompt_eval_cached_count": usage.tokens.cache_read,
            "eval_count": usage.tokens.completion,
        }
        details = {name: value for name, value in (usage.details or {}).items() if name in _DETAILS}
        done.update((name, value) for name, value in {**details, **counts}.items() if value)
    return done


def _calls(calls: Sequence[Call]) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "function": {"index": index, "name": call.name, "arguments": _arguments(call)}}
        for index, call in enumerate(calls)
    ]


def _arguments(call: Call) -> dict[str, Any]:
    try:
        arguments = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InternalError(f"the arguments of the call of {call.name} are not a JSON object")
    return arguments
