"""What a request was, once it is over: its record, and what can be learnt from it."""

from __future__ import annotations

from typing import Final, NamedTuple

from app.core.errors import ClientGone, GatewayError
from app.core.outcome import Ask, Noticed
from app.core.record import Record
from app.core.request import Request
from app.core.steps import Steps
from app.gateway.exchange import Exchange
from app.learning.asks import ask_of


class Learnt(NamedTuple):
    """What a look back finds out about a request and its answer."""

    noticed: Noticed | None = None
    ask: Ask | None = None


NOTHING: Final = Learnt()


def record_of(exchange: Exchange, learnt: Learnt = NOTHING) -> Record:
    """What readers of finished requests are told of this one."""
    terms, plan, usage = exchange.request.terms, exchange.plan, exchange.used
    candidate, stands_in_for, began = exchange.candidate, exchange.stands_in_for, exchange.began
    card = None if candidate is None else candidate.card
    seconds = (exchange.clock.monotonic() if exchange.ended is None else exchange.ended) - exchange.started
    return Record(
        request_id=terms.request_id,
        parent_id=terms.parent_id,
        root_id=terms.root_id,
        depth=terms.depth,
        endpoint=exchange.endpoint,
        model_requested=exchange.request.model,
        stream=exchange.streams,
        status=_status(exchange),
        started_at=exchange.started_at,
        seconds=seconds,
        overhead_seconds=max(0.0, seconds - exchange.upstream_seconds),
        error_code=None if exchange.error is None else exchange.error.code,
        key_id=exchange.caller.key_id,
        tenant=exchange.caller.tenant,
        agent=terms.agent,
        session=terms.session,
        stream_id=terms.stream_id,
        model=None if card is None else card.id,
        upstream=None if card is None else card.upstream,
        local=None if card is None else card.local,
        tier=None if plan is None else plan.tier,
        score=None if plan is None else plan.score,
        strategy=None if plan is None else plan.strategy,
        reason=None if candidate is None else candidate.reason,
        fallback_from=stands_in_for,
        passed_over=None if stands_in_for is None else exchange.kept_out.get(stands_in_for),
        attempts=tuple(exchange.attempts),
        tokens=None if usage is None else usage.tokens,
        usage_estimated=usage is not None and usage.estimated,
        truncated=usage is not None and usage.truncated,
        cost_nano=_cost(exchange),
        first_token_seconds=None if began is None else began - exchange.started,
        finish=exchange.finish,
        client_gone=isinstance(exchange.error, ClientGone),
        trace_id=_trace_id(terms.trace_parent),
        steps=terms.steps,
        consent=exchange.caller.store_content,
        retention_days=exchange.caller.retention_days,
        plan=plan,
        needs=exchange.request.needs,
        flags={} if exchange.planned is None else dict(exchange.planned.flags),
        config_version=None if exchange.planned is None else exchange.planned.version or None,
        noticed=learnt.noticed,
        ask=learnt.ask,
    )


def refusal(
    endpoint: str, request_id: str, error: GatewayError, started_at: float, seconds: float, steps: Steps | None = None
) -> Record:
    """That of what was refused before it became a request."""
    return Record(
        request_id=request_id,
        parent_id=None,
        root_id=request_id,
        depth=0,
        endpoint=endpoint,
        model_requested="",
        stream=False,
        status=error.status,
        started_at=started_at,
        seconds=seconds,
        overhead_seconds=seconds,
        error_code=error.code,
        trace_id=None if steps is None else steps.trace_id,
        steps=steps,
    )


def looked_back(exchange: Exchange) -> Learnt:
    """What can be learnt from it. This costs more than the rest, and nobody should wait for it."""
    request, planned, seen = exchange.request, exchange.planned, exchange.noticing
    if not isinstance(request, Request) or planned is None:
        return NOTHING
    noticed = None if seen is None or exchange.running.first_content is None else seen.noticed()
    return Learnt(noticed, ask_of(request, exchange.caller.key_id, planned.read.text, planned.read.sketch))


def _status(exchange: Exchange) -> int:
    if exchange.error is None:
        return 200
    began = exchange.streams and exchange.began is not None
    return 200 if began and not isinstance(exchange.error, ClientGone) else exchange.error.status


def _cost(exchange: Exchange) -> int | None:
    """Of all attempts; None where nobody knows what the answer cost."""
    if exchange.running.usage is not None and exchange.running.charge_nano is None:
        return None
    spent = [attempt.cost_nano for attempt in exchange.attempts if attempt.cost_nano is not None]
    return sum(spent) if spent else None


def _trace_id(trace_parent: str | None) -> str | None:
    return None if trace_parent is None else trace_parent.split("-")[1]
