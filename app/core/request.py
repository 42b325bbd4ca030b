"""What a caller wants, in no dialect, frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from operator import attrgetter
from typing import Any, Final

from app.core.card import Ability
from app.core.messages import Format, Message, Tool, ToolChoice
from app.core.steps import Steps
from app.core.value import value


@value(frozen=True, slots=True)
class Terms:
    """How the caller wants to be served: from the `x-tierway-*` headers, the key's policy and the request's parent.

    `deadline` is what the caller set, in monotonic seconds of the process's clock. `root_id` and `depth` say which tree
    of requests this one belongs to; a request of a client is its own root at depth 0. `arm` is that of a rollout which
    caused this request. `ignored` names headers that had no effect. `truncate`: what the caller sent may be shortened
    to fit a window. `resumable`: the stream may be read on after its client left; None: it did not say. `stream_id` is
    that of the stream it makes then. `continues`: another model may go on with an answer that broke off.
    `max_cost_nano` is the most that this request and all it causes may cost, `session_max_cost_nano` its whole session.

    `flags` is empty until the feature flags are first asked, and from then on what they are for this request and all
    it causes: a flag that changes meanwhile counts for the next one. `trace_parent` is the request's own place in its
    trace, traced or not; `steps` are there where it is traced.
    """

    request_id: str
    root_id: str
    parent_id: str | None = None
    depth: int = 0
    deadline: float | None = None
    trace_parent: str | None = None
    trace_state: str | None = None
    strategy: str | None = None
    session: str | None = None
    agent: str | None = None
    priority: str = "interactive"
    local_only: bool = False
    arm: str | None = None
    ignored: tuple[str, ...] = ()
    max_cost_nano: int | None = None
    session_max_cost_nano: int | None = None
    truncate: bool = False
    resumable: bool | None = None
    stream_id: str | None = None
    continues: bool = False
    flags: dict[str, bool] = field(default_factory=dict, compare=False)
    steps: Steps | None = field(default=None, compare=False, repr=False)

    @property
    def trace_headers(self) -> dict[str, str]:
        """Where an upstream's part in the trace begins."""
        parent = self.trace_parent if self.steps is None else self.steps.header
        if parent is None:
            return {}
        if self.trace_state is None:
            return {"traceparent": parent}
        return {"traceparent": parent, "tracestate": self.trace_state}


@value(frozen=True, slots=True)
class Request:
    """One chat request.

    `body` is the caller's parsed body in `dialect`; a codec of the same dialect writes from it, so that fields we do
    not know survive. `hints` are known parameters that may be dropped with a word (seed, sampling, penalties, user,
    metadata, ...), by their OpenAI name; `extra` are fields nobody here knows.
    `needs` is what a model must be able to do to answer at all.
    """

    model: str
    messages: tuple[Message, ...]
    terms: Terms
    dialect: str
    body: Mapping[str, Any]
    stream: bool = False
    include_usage: bool = False
    n: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    format: Format | None = None
    effort: str | None = None  # none | minimal | low | medium | high | xhigh | max
    logprobs: int | None = None  # None: not asked; else how many alternatives
    hints: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    needs: frozenset[Ability] = frozenset({Ability.CHAT})
    input_bytes: int = 0  # of all text a model will read: messages, tools, schema

    @property
    def id(self) -> str:
        return self.terms.request_id

    def held_to(self, max_tokens: int) -> Request:
        """The same with this limit. As `dataclasses.replace` would, which looks up every field anew each time."""
        values = list(_VALUES(self))
        values[_MAX_TOKENS] = max_tokens
        return Request(*values)


_NAMES: Final = tuple(each.name for each in fields(Request))
_VALUES: Final = attrgetter(*_NAMES)
_MAX_TOKENS: Final = _NAMES.index("max_tokens")


@value(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts (or token lists) to embed. `base64`: how the client wants the vectors written."""

    model: str
    inputs: tuple[str, ...] | tuple[tuple[int, ...], ...]
    terms: Terms
    body: Mapping[str, Any]
    dimensions: int | None = None
    base64: bool = False
    needs: frozenset[Ability] = frozenset({Ability.EMBEDDINGS})

    @property
    def id(self) -> str:
        return self.terms.request_id


AnyRequest = Request | EmbeddingRequest


@value(frozen=True, slots=True)
class Embeddings:
    """One vector per input, in their order. `prompt_tokens` None: the upstream did not say."""

    vectors: tuple[Sequence[float], ...]
    model: str
    prompt_tokens: int | None
    ignored: tuple[str, ...] = ()
