"""What a finished request looks like in a trace: its spans, their names and attributes. The one place where they are
named, as the GenAI semantic conventions of OpenTelemetry have it, and by names of ours for what these do not know.

The conventions are for calls of models, so an attempt carries them, and only an attempt: whoever sums up tokens over
spans must not count them twice. Texts are there only where an operator asked for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import orjson

from app.core.errors import Blame
from app.core.messages import Message, Part, RefusalPart, TextPart, ToolResultPart, ToolUsePart
from app.core.money import Tokens, usd
from app.core.record import Attempt, Record
from app.core.steps import NANO, Steps, new_span_id

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans, by OTLP's numbers."""
REQUEST, STREAM, ATTEMPT = "tierway.request", "tierway.stream", "tierway.attempt"
PROVIDERS: Final = {"anthropic": "anthropic", "openai": "openai", "ollama": "ollama", "vllm": "vllm"}
"""By the kind of the upstream. The conventions name the first two; others are to be named plainly."""
TEXT_MAX: Final = 256
"""Of a value that a caller chose, as in the log."""
FINE: Final = ("ok", "left", "stopped")
"""Outcomes of attempts that are no errors."""
Value = str | int | float | bool | tuple[str, ...]


class Span(NamedTuple):
    """Times in nanoseconds since 1970. `error` is its type, where the span failed."""

    name: str
    kind: int
    span_id: str
    parent_id: str | None
    began: int
    ended: int
    attributes: Mapping[str, Value]
    error: str | None = None


def spans_of(record: Record, steps: Steps, settled: int) -> list[Span]:
    """The spans of a request whose settling ended at this moment; its own one is the first."""
    ended = int((record.started_at + record.seconds) * NANO)
    root = steps.span_id
    failed = record.error_code if record.status >= 500 or record.status < 400 else None
    spans = [Span(REQUEST, SERVER, root, steps.parent_id, steps.at(steps.began), ended, _request(record), failed)]
    for part in steps.parts:
        about = _said({"tierway.model": part.model, "error.type": part.error})
        began, over = steps.at(part.began), steps.at(part.ended)
        spans.append(Span(f"tierway.{part.name}", INTERNAL, new_span_id(), root, began, over, about, part.error))
    for number, (attempt, (span_id, moment)) in enumerate(zip(record.attempts, steps.attempts, strict=False), 1):
        error = None if attempt.outcome in FINE else attempt.outcome
        began = steps.at(moment)
        over = began + int(attempt.seconds * NANO)
        spans.append(Span(ATTEMPT, CLIENT, span_id, root, began, over, _attempt(record, attempt, number), error))
    if record.stream and record.first_token_seconds is not None:
        first = int((record.started_at + record.first_token_seconds) * NANO)
        spans.append(Span(STREAM, INTERNAL, new_span_id(), root, first, ended, {}))
    spans.append(Span("tierway.settle", INTERNAL, new_span_id(), root, ended, max(ended, settled), {}))
    return spans


def _request(record: Record) -> dict[str, Value]:
    verdict = None if record.plan is None else record.plan.verdict
    tokens = record.tokens
    told = _said(
        {
            "tierway.request_id": record.request_id,
            "tierway.parent_request_id": record.parent_id,
            "tierway.endpoint": record.endpoint,
            "tierway.model_requested": record.model_requested or None,
            "tierway.model": record.model,
            "tierway.upstream": record.upstream,
            "tierway.local": record.local,
            "tierway.tier": record.tier,
            "tierway.score": record.score,
            "tierway.task_type": None if verdict is None else verdict.task_type,
            "tierway.strategy": record.strategy,
            "tierway.reason": record.reason,
            "tierway.fallback_from": record.fallback_from,
            "tierway.attempts": len(record.attempts),
            "tierway.stream": record.stream,
            "tierway.tokens_in": None if tokens is None else tokens.prompt,
            "tierway.tokens_out": None if tokens is None else tokens.completion,
            "tierway.tokens_cached": None if tokens is None else tokens.cache_read,
            "tierway.cost_usd": None if record.cost_nano is None else usd(record.cost_nano),
            "tierway.first_token_seconds": record.first_token_seconds,
            "tierway.overhead_seconds": record.overhead_seconds,
            "tierway.tenant": record.tenant,
            "tierway.key_id": record.key_id,
            "tierway.agent": record.agent,
            "tierway.session": record.session,
            "tierway.config_version": record.config_version,
            "http.response.status_code": record.status,
            "error.type": record.error_code,
        }
    )
    if record.client_gone:
        told["tierway.client_gone"] = True
    return told


def _attempt(record: Record, attempt: Attempt, number: int) -> dict[str, Value]:
    served, tokens = number == len(record.attempts) and attempt.outcome in FINE, attempt.tokens
    name = attempt.model.partition("/")[2]
    told = _said(
        {
            "gen_ai.operation.name": record.endpoint,
            "gen_ai.provider.name": _provider(record, attempt),
            "gen_ai.request.model": name,
            "gen_ai.conversation.id": record.session,
            "tierway.model": attempt.model,
            "tierway.upstream": attempt.upstream,
            "tierway.attempt": number,
            "tierway.outcome": attempt.outcome,
            "tierway.blame": None if attempt.blame is None else str(Blame(attempt.blame)),
            "tierway.cost_usd": None if attempt.cost_nano is None else usd(attempt.cost_nano),
            "error.type": None if attempt.outcome in FINE else attempt.outcome,
        }
    )
    if record.stream:
        told["gen_ai.request.stream"] = True
    if tokens is not None:
        told |= _usage(tokens)
    if served:
        told["gen_ai.response.model"] = name
        if record.finish is not None:
            told["gen_ai.response.finish_reasons"] = (record.finish,)
        told |= _content(record)
    return told


def _usage(tokens: Tokens) -> dict[str, Value]:
    """A cache that was not used, and thinking that was not done, are left out."""
    told: dict[str, Value] = {
        "gen_ai.usage.input_tokens": tokens.prompt,
        "gen_ai.usage.output_tokens": tokens.completion,
    }
    if tokens.cache_read:
        told["gen_ai.usage.cache_read.input_tokens"] = tokens.cache_read
    if tokens.cache_write:
        told["gen_ai.usage.cache_creation.input_tokens"] = tokens.cache_write
    if tokens.reasoning:
        told["gen_ai.usage.reasoning.output_tokens"] = tokens.reasoning
    return told


def _provider(record: Record, attempt: Attempt) -> str | None:
    candidates = () if record.plan is None else record.plan.candidates
    kinds = (each.card.kind for each in candidates if each.card.id == attempt.model)
    return PROVIDERS.get(next(kinds, ""))


def _said(values: Mapping[str, str | int | float | bool | None]) -> dict[str, Value]:
    """What is known, no text longer than it may be."""
    return {
        name: f"{value[:TEXT_MAX]}…" if type(value) is str and len(value) > TEXT_MAX else value
        for name, value in values.items()
        if value is not None
    }


# --- texts, where an operator asked for them -------------------------------------------------------------------------


def _content(record: Record) -> dict[str, Value]:
    content = None if record.steps is None else record.steps.content
    if content is None or content.asked is None or record.consent == "off":
        return {}
    answer = [{"role": "assistant", "parts": [{"type": "text", "content": "".join(content.answered)}]}]
    answered = [{**each, "finish_reason": record.finish or "error"} for each in answer]
    return {"gen_ai.input.messages": content.asked, "gen_ai.output.messages": _json(answered)}


def asked_of(messages: Iterable[Message], most: int) -> str:
    """Messages as the conventions write them; of all their texts together at most so many characters, and no images."""
    written = []
    for message in messages:
        parts = []
        for part in message.parts:
            kind, name, text = _text_of(part)
            if kind:
                parts.append({"type": kind, name: text[:most] if len(text) <= most else f"{text[:most]}…"})
                most = max(0, most - len(text))
        written.append({"role": message.role, "parts": parts})
        if not most:
            break
    return _json(written)


def _text_of(part: Part) -> tuple[str, str, str]:
    match part:
        case TextPart(text=text) | RefusalPart(text=text):
            return "text", "content", text
        case ToolUsePart(arguments=text):
            return "tool_call", "arguments", text
        case ToolResultPart(parts=parts):
            return "tool_call_response", "response", "".join(each.text for each in parts if isinstance(each, TextPart))
        case _:
            return "", "", ""


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate
        return "[]"
