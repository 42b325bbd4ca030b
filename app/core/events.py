"""An answer is a stream of events; a JSON answer is their fold.

    Start (Text | Reasoning | ToolCall)* Finish+ Usage     or     ... Fault

Codecs make events from an upstream's bytes and bytes for a client from events. Where both speak the same dialect the
upstream's own bytes travel along (`raw`, `Start.body`), so that fields we do not know survive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, takewhile
from typing import Any, Final

from app.core.errors import GatewayError
from app.core.money import Tokens
from app.core.record import Served


@dataclass(slots=True)
class Start:
    """The first event. Not content: an attempt may still fail over after it.

    `model` is the name the upstream knows the model by. `body` is the whole reply of an upstream that answered in
    JSON, parsed and already normalised, in `dialect`. `ignored` names request fields that were dropped.
    `prompt` are the tokens of the prompt, where the upstream counts them before it answers: what is known of an answer
    that breaks off. `served` is filled in by the gateway, for headers and the `tierway` object.
    """

    id: str
    model: str
    created: int  # seconds since 1970, UTC
    dialect: str
    raw: bytes | None = None
    body: dict[str, Any] | None = None
    fingerprint: str | None = None
    service_tier: str | None = None
    ignored: tuple[str, ...] = ()
    prompt: Tokens | None = None
    served: Served | None = None


@dataclass(slots=True)
class Text:
    """A piece of the answer's text (`refusal`: of a refusal). `extra` holds delta fields of the dialect we do not
    model (annotations, audio); `logprobs` is OpenAI's object, of this piece. `pieces`: so many of the upstream's, which
    came with the same bytes and go on as one. `more`: another piece came with them and follows at once, so that both
    may leave together."""

    text: str
    choice: int = 0
    refusal: bool = False
    logprobs: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None
    raw: bytes | None = None
    pieces: int = 1
    more: bool = False


@dataclass(slots=True)
class Reasoning:
    """A piece of thinking. A `signature` closes the block that the pieces before it make (Anthropic); `redacted` is a
    whole block of opaque data."""

    text: str
    choice: int = 0
    signature: str | None = None
    redacted: str | None = None
    raw: bytes | None = None


@dataclass(slots=True)
class ToolCall:
    """A piece of a tool call. `call` counts from 0 without gaps within the choice; `id` and `name` come with the first
    piece of a call only; `arguments` are pieces of JSON text that concatenate. `custom`: free text instead of JSON."""

    call: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None
    choice: int = 0
    custom: bool = False
    raw: bytes | None = None


@dataclass(slots=True)
class Finish:
    """A choice is done: `stop`, `length`, `tool_calls` or `content_filter`. `detail` is the upstream's own word
    where it says more; `extra` are fields of the choice we do not model."""

    reason: str
    choice: int = 0
    detail: str | None = None
    extra: dict[str, Any] | None = None


@dataclass(slots=True)
class Usage:
    """Tokens of the answer; always the last event. `estimated` where the upstream did not say, `truncated` where it
    evaluated less than it was sent. `details` is the upstream's own usage object in `Start.dialect`.
    `cost_nano` is filled in by the gateway: None when the price is unknown; and so is `stopped`, by what it ended the
    answer early."""

    tokens: Tokens
    estimated: bool = False
    truncated: bool = False
    details: dict[str, Any] | None = None
    cost_nano: int | None = None
    stopped: str | None = None


@dataclass(slots=True)
class Fault:
    """The answer broke after content had been sent; the codec writes it in-stream and the stream ends."""

    error: GatewayError


Piece = Text | Reasoning | ToolCall | Finish
"""What is of one choice."""
Event = Start | Piece | Usage | Fault
CONTENT = (Text, Reasoning, ToolCall)

TOGETHER_MOST: Final = 64
"""Pieces that leave in one write: more of them would wait for each other, and be held twice."""


def is_content(event: Event) -> bool:
    """Whether an event commits the gateway to this upstream: something of the answer itself (or its orderly end)."""
    return isinstance(event, (Text, Reasoning, ToolCall, Finish))


@dataclass(slots=True)
class Call:
    """A whole tool call."""

    id: str
    name: str
    arguments: str
    custom: bool = False


@dataclass(slots=True)
class Thought:
    """A whole thinking block; `redacted` blocks have data instead of text."""

    text: str
    signature: str | None = None
    redacted: str | None = None


@dataclass(slots=True)
class Choice:
    """One whole answer. `text` is None when no text ever came."""

    index: int
    text: str | None = None
    refusal: str | None = None
    thoughts: list[Thought] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    finish: str | None = None
    detail: str | None = None
    logprobs: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)  # of the message
    finish_extra: dict[str, Any] = field(default_factory=dict)  # of the choice

    @property
    def reasoning(self) -> str:
        """All thinking as one text."""
        return "".join(thought.text for thought in self.thoughts)


@dataclass(slots=True)
class Answer:
    """A whole reply: what the events add up to."""

    start: Start
    choices: list[Choice]
    usage: Usage | None
    fault: GatewayError | None = None


class Fold:
    """Adds events up to an `Answer`. Pieces are kept in lists and joined once, so that cost grows linearly."""

    def __init__(self) -> None:
        self.start: Start | None = None
        self.usage: Usage | None = None
        self.fault: GatewayError | None = None
        self._choices: dict[int, _Pieces] = {}

    def add(self, event: Event) -> None:
        match event:
            case Start():
                self.start = event
            case Usage():
                self.usage = event
            case Fault():
                self.fault = event.error
            case _:
                pieces = self._choices.get(event.choice)
                if pieces is None:
                    pieces = self._choices[event.choice] = _Pieces(event.choice)
                pieces.add(event)

    def answer(self) -> Answer:
        assert self.start is not None, "a stream of events begins with Start"
        choices = [self._choices[index].choice() for index in sorted(self._choices)]
        return Answer(self.start, choices, self.usage, self.fault)


class _Pieces:
    """What has come of one choice so far."""

    def __init__(self, index: int) -> None:
        self._choice = Choice(index)
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._extra: list[dict[str, Any]] = []
        self._thought: list[str] = []
        self._calls: dict[int, tuple[Call, list[str]]] = {}

    def add(self, event: Piece) -> None:
        match event:
            case Text():
                self._add_text(event)
            case Reasoning():
                self._add_reasoning(event)
            case ToolCall():
                self._add_call(event)
            case _:
                self._choice.finish, self._choice.detail = event.reason, event.detail
                if event.extra:
                    self._choice.finish_extra.update(event.extra)

    def _add_text(self, event: Text) -> None:
        if event.refusal:
            self._refusal.append(event.text)
        elif event.text or not event.extra:
            self._text.append(event.text)
        if event.logprobs:
            self._logprobs.append(event.logprobs)
        if event.extra:
            self._extra.append(event.extra)

    def _add_reasoning(self, event: Reasoning) -> None:
        if event.redacted is not None:
            self._close_thought(None)
            self._choice.thoughts.append(Thought("", redacted=event.redacted))
            return
        self._thought.append(event.text)
        if event.signature is not None:
            self._close_thought(event.signature)

    def _close_thought(self, signature: str | None) -> None:
        if self._thought or signature is not None:
            self._choice.thoughts.append(Thought("".join(self._thought), signature))
            self._thought = []

    def _add_call(self, event: ToolCall) -> None:
        known = self._calls.get(event.call)
        if known is None:
            known = self._calls[event.call] = (Call(event.id or "", event.name or "", "", event.custom), [])
        known[1].append(event.arguments)

    def choice(self) -> Choice:
        if self._thought:
            self._close_thought(None)
        choice = self._choice
        choice.text = "".join(self._text) if self._text else None
        choice.refusal = "".join(self._refusal) if self._refusal else None
        choice.logprobs = merge(*self._logprobs) if self._logprobs else None
        if self._extra:
            choice.extra = merge(*self._extra)
        choice.calls = []
        for index in sorted(self._calls):
            call, pieces = self._calls[index]
            call.arguments = "".join(pieces)
            choice.calls.append(call)
        return choice


def choice_of(index: int, events: Iterable[Piece]) -> Choice:
    """The one choice that these events of it add up to."""
    pieces = _Pieces(index)
    for event in events:
        pieces.add(event)
    return pieces.choice()


def fold(events: Iterable[Event]) -> Answer:
    """The answer a whole stream adds up to."""
    folder = Fold()
    for event in events:
        folder.add(event)
    return folder.answer()


def merge(*deltas: Mapping[str, Any]) -> dict[str, Any]:
    """Adds up deltas of unknown fields the way official clients do: text is appended, lists are extended, objects are
    merged, anything else is replaced, and null says nothing. All at once, so that cost grows linearly."""
    columns: dict[str, list[Any]] = {}
    for delta in deltas:
        for key, value in delta.items():
            columns.setdefault(key, []).append(value)
    return {key: _sum(key, values) for key, values in columns.items()}


def _sum(key: str, values: list[Any]) -> Any:
    said = [value for value in values if value is not None]
    kind = next((kind for kind in (str, list, dict) if said and isinstance(said[-1], kind)), None)
    if kind is None or (kind is str and key in ("id", "type")):
        return said[-1] if said else None
    alike = list(takewhile(lambda value: isinstance(value, kind), reversed(said)))[::-1]
    if len(alike) == 1:
        return alike[0]
    if kind is str:
        return "".join(alike)
    return merge(*alike) if kind is dict else list(chain.from_iterable(alike))
