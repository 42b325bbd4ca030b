"""What a codec is. Each dialect's module implements the half (or both) that the product needs, as plain functions.

    towards an upstream: write_request -> bytes;  its reply's bytes -> reader / read_reply / read_error -> events
    towards a client:    bytes -> read_request;   events -> writer / write_reply / write_error -> bytes

The simulator is made of the client halves of all dialects. A module is an implementation: mypy checks modules against
protocols.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Protocol

from app.core.card import Card
from app.core.errors import GatewayError
from app.core.events import Answer, Event
from app.core.request import Request, Terms
from app.core.value import value


@value(frozen=True, slots=True)
class Outgoing:
    """A request as one upstream wants it.

    `ignored` names, in the caller's words, the request fields that were dropped. `memo` is what the reader of the
    reply must know again (tool ids that were rewritten, what was asked for); only its own codec looks inside.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    memo: Any = None


@value(frozen=True, slots=True)
class Limits:
    """Bounds on what a client may send."""

    body_bytes: int = 20_971_520
    messages: int = 2_048
    tools: int = 256
    depth: int = 64


class Reader(Protocol):
    """Turns the bytes of a streamed reply into events, however they are split."""

    @property
    def over(self) -> bool:
        """Whether the answer has said its last word, which may be before its body ends."""
        ...

    def feed(self, data: bytes) -> list[Event]:
        """The events that became whole with these bytes. Raises an `UpstreamFault` for what breaks the wire."""
        ...

    def end(self) -> list[Event]:
        """The last events once the body is over. Raises `Incomplete` if the answer never finished."""
        ...


class Writer(Protocol):
    """Turns events into the bytes of a streamed reply."""

    def write(self, event: Event) -> bytes:
        """The bytes to send now; may be empty (an event held back until the next)."""
        ...

    def end(self) -> bytes:
        """What closes a stream that went well; nothing after a Fault."""
        ...


class UpstreamCodec(Protocol):
    """The half that speaks to upstreams."""

    def write_request(self, request: Request, card: Card) -> Outgoing:
        """Raises `UnsupportedParameter` (or another CallerError) for what this wire or model cannot do."""
        ...

    def reader(self, request: Request, card: Card, outgoing: Outgoing) -> Reader: ...

    def read_reply(self, body: bytes, request: Request, card: Card, outgoing: Outgoing) -> list[Event]:
        """The events of a whole JSON reply; the same answer as the stream of it would fold to."""
        ...

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """What a reply with another status than 200 means. `headers` have lower-case names."""
        ...


class ClientCodec(Protocol):
    """The half that speaks to clients."""

    def read_request(self, body: bytes, terms: Terms, limits: Limits) -> Request:
        """Raises `InvalidJson`, `InvalidValue` and the like, naming the field in `param`."""
        ...

    def writer(self, request: Request) -> Writer: ...

    def write_reply(self, answer: Answer, request: Request) -> bytes: ...

    def write_error(self, error: GatewayError) -> bytes:
        """The error as a JSON body."""
        ...
