"""One choice of an OpenAI-compatible reply -> events, from its deltas or from its whole message alike, so that a
streamed and an unstreamed answer come to the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.core.errors import BadReply, ServerFault
from app.core.events import Finish, Piece, Reasoning, Text
from app.core.request import Request
from app.wire.chat.calls import Calls

FINISH: Final[Mapping[str, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",
    "max_tokens": "length",
    "max_length": "length",
    "model_length": "length",
    "safety": "content_filter",
}
"""What servers say; any other word is a stop, with the word kept as detail."""

_THINKING: Final = frozenset({"reasoning", "reasoning_content", "thinking_blocks"})
_BROKEN: Final = frozenset({"abort", "error", "network_error"})
_MODELLED: Final = frozenset(
    {
        "role",
        "content",
        "refusal",
        "tool_calls",
        "function_call",
        *_THINKING,
    }
)
_CHOICE: Final = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
_LEGACY_INDEX: Final = -1  # where no real call can be


class ChoiceReader:
    """State of one choice. `whole`: its message comes at once instead of in deltas."""

    def __init__(self, index: int, request: Request, *, whole: bool = False) -> None:
        self.index = index
        self.finished = False
        self._whole = whole
        self._calls = Calls(index, request.id)
        choice = request.tool_choice
        self._named = choice is not None and choice.mode == "named"

    def read(self, choice: Mapping[str, Any], fields: Any) -> list[Piece]:
        """The events of one chunk's choice; `fields` is its delta or message."""
        if fields is None:
            fields = {}
        if type(fields) is not dict:
            raise BadReply("a choice of the reply has no message object")
        events = [] if _THINKING.isdisjoint(fields) else self._thinking(fields)
        events += self._texts(fields, _logprobs(choice.get("logprobs")))
        if "tool_calls" in fields:
            for entry in _list(fields["tool_calls"], "tool_calls"):
                events += self._calls.add(entry, whole=self._whole)
        if fields.get("function_call") is not None:
            entry = {"index": _LEGACY_INDEX, "function": fields["function_call"]}
            events += self._calls.add(entry, whole=self._whole)
        reason = choice.get("finish_reason")
        if reason is not None and not self.finished:
            events += self._finish(reason, choice)
        return events

    def _thinking(self, fields: Mapping[str, Any]) -> list[Piece]:
        blocks = [_block(block) for block in _list(fields.get("thinking_blocks"), "thinking_blocks")]
        if self._whole and blocks:
            return [Reasoning(text, self.index, signature, redacted) for text, signature, redacted in blocks]
        text = _text(fields, "reasoning_content") or _text(fields, "reasoning")
        events: list[Piece] = [Reasoning(text, self.index)] if text else []
        events += [Reasoning("", self.index, redacted=redacted) for _, _, redacted in blocks if redacted is not None]
        # In a stream the blocks repeat text that came before; with several, none can say where it belongs.
        signatures = [signature for _, signature, redacted in blocks if redacted is None and signature]
        if len(signatures) == 1:
            events.insert(1 if text else 0, Reasoning("", self.index, signatures[0]))
        return events

    def _texts(self, fields: Mapping[str, Any], logprobs: dict[str, Any] | None) -> list[Piece]:
        text, refusal = _text(fields, "content"), _text(fields, "refusal")
        extra = {name: value for name, value in fields.items() if name not in _MODELLED and value not in _EMPTY}
        events: list[Piece] = []
        if text or extra or (logprobs and not refusal):
            events.append(Text(text, self.index, logprobs=None if refusal else logprobs, extra=extra or None))
        if refusal:
            events.append(Text(refusal, self.index, refusal=True, logprobs=logprobs))
        return events

    def _finish(self, reason: Any, choice: Mapping[str, Any]) -> list[Piece]:
        if type(reason) is not str:
            raise BadReply("the finish reason is not text")
        if reason in _BROKEN:
            raise ServerFault("the upstream gave the answer up")
        self.finished = True
        known = FINISH.get(reason, "stop")
        # Servers say `stop` after tool calls (and OpenAI itself does so where the tool was named), and some say
        # `tool_calls` when none came, which would leave a client waiting for a call to make.
        if known == "stop" and self._calls and not self._named:
            known = "tool_calls"
        elif known == "tool_calls" and not self._calls:
            known = "stop"
        extra = {name: value for name, value in choice.items() if name not in _CHOICE and value not in _EMPTY}
        detail = None if reason in FINISH else reason
        return [*self._calls.close(), Finish(known, self.index, detail, extra or None)]


_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})


def _text(fields: Mapping[str, Any], name: str) -> str:
    if name not in fields or (value := fields[name]) is None:
        return ""
    if type(value) is str:
        return value
    raise BadReply(f"'{name}' of the reply is not text")


def _list(value: Any, name: str) -> list[Any]:
    if value is None:
        return []
    if type(value) is list:
        return value
    raise BadReply(f"'{name}' of the reply is not an array")


def _logprobs(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if type(value) is not dict or any(type(value.get(name)) not in _LISTS for name in ("content", "refusal")):
        raise BadReply("'logprobs' of the reply is not what it must be")
    return value if any(value.values()) else None


_LISTS: Final = (list, type(None))


def _block(block: Any) -> tuple[str, str | None, str | None]:
    """Text, signature and opaque data of a thinking block."""
    if type(block) is not dict:
        raise BadReply("a thinking block of the reply is not an object")
    if block.get("type") == "redacted_thinking":
        return "", None, _text(block, "data")
    return _text(block, "thinking"), _text(block, "signature") or None, None
