"""The record of a request: what dashboards, bills and explanations are made of."""

from __future__ import annotations

from dataclasses import fields

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.clock import ManualClock
from app.core.errors import (
    Broken,
    ClientGone,
    GatewayError,
    InternalError,
    ModelNotFound,
    UpstreamFailed,
)
from app.core.events import Text, Usage
from app.core.messages import Message, TextPart
from app.core.money import Tokens
from app.core.plan import Candidate, Plan
from app.core.record import Record
from app.core.verdict import Verdict
from app.gateway.planning import Planned
from app.gateway.reading import UNREAD, Read
from app.gateway.recording import NOTHING, looked_back, record_of, refusal
from tests.core.nouns import card, chat, embedding, paid, terms
from tests.gateway.fakes import exchange_of, move, planned

QWEN, OPUS, BACKUP = card("gpu/qwen"), paid("claude/opus"), card("gpu/backup")
SIMPLE = Verdict(0.2, 0.9, "docs", "v1")


def test_a_record_holds_everything_the_request_was() -> None:
    """A field that is forgotten here is missing in every log line and every bill."""
    own = terms(
        request_id="req-2",
        root_id="req-1",
        parent_id="req-1",
        depth=1,
        session="s-1",
        stream_id="stream_1",
        agent="qe-1",
        trace_parent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    caller = Caller(key_id="key-1", tenant="acme", store_content="training", retention_days=30)
    exchange = exchange_of(QWEN, request=chat("auto", stream=True, terms=own), caller=caller, clock=ManualClock(50.0))
    made = Plan((Candidate(QWEN, "local"), Candidate(OPUS, "it can")), "cost", verdict=SIMPLE)
    exchange.planned = Planned(made, flags={"LOCAL_MODELS": True})
    exchange.attempt_begins(made.candidates[0])
    move(exchange, 1.0)
    exchange.attempt_ends(Broken("reset"))
    exchange.attempt_begins(made.candidates[1])
    exchange.running.first_content = exchange.started + 1.5
    move(exchange, 1.0)
    exchange.running.usage = Usage(Tokens(10, 5), estimated=True, truncated=True)
    exchange.running.charge_nano = 20
    exchange.attempt_ends(None)
    exchange.finish = "stop"
    expected = {
        "request_id": "req-2",
        "parent_id": "req-1",
        "root_id": "req-1",
        "depth": 1,
        "endpoint": "chat",
        "model_requested": "auto",
        "stream": True,
        "status": 200,
        "started_at": 50.0,
        "seconds": 2.0,
        "overhead_seconds": 0.0,
        "error_code": None,
        "key_id": "key-1",
        "tenant": "acme",
        "agent": "qe-1",
        "session": "s-1",
        "model": "claude/opus",
        "upstream": "claude",
        "local": False,
        "tier": "simple",
        "score": 0.2,
        "strategy": "cost",
        "reason": "it can",
        "passed_over": None,
        "fallback_from": "gpu/qwen",
        "attempts": tuple(exchange.attempts),
        "tokens": Tokens(10, 5),
        "usage_estimated": True,
        "truncated": True,
        "cost_nano": 20,
        "first_token_seconds": 1.5,
        "finish": "stop",
        "client_gone": False,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "flags": {"LOCAL_MODELS": True},
        "plan": made,
        "noticed": None,
        "ask": None,
        "consent": "training",
        "retention_days": 30,
        "needs": chat().needs,
        "config_version": None,
        "stream_id": "stream_1",
        "steps": None,
    }
    record = record_of(exchange)
    assert {field.name: getattr(record, field.name) for field in fields(Record)} == expected


def test_what_earlier_attempts_were_charged_is_in_the_sum_once() -> None:
    """A failed attempt that was billed is part of what the answer cost; a free one after it costs nothing more."""
    exchange = exchange_of(OPUS, QWEN, BACKUP)
    for candidate, nano in zip(planned(OPUS, QWEN, BACKUP).candidates, (30, None, 5), strict=True):
        exchange.attempt_begins(candidate)
        exchange.running.charge_nano = nano
        exchange.attempt_ends(Broken("reset") if nano != 5 else None)
    assert [each.cost_nano for each in exchange.attempts] == [30, None, 5]
    assert (exchange.earlier_nano, record_of(exchange).cost_nano) == (30, 35)


def test_a_request_without_a_plan_has_a_record_all_the_same() -> None:
    """Refused requests are counted too."""
    exchange = exchange_of()
    exchange.error = ModelNotFound("none")
    record = record_of(exchange)
    assert (record.status, record.error_code, record.model, record.strategy) == (404, "model_not_found", None, None)
    assert (record.upstream, record.local, record.reason, record.tokens, record.trace_id) == (None,) * 5


@pytest.mark.parametrize(
    ("stream", "content", "error", "status"),
    [
        (True, True, None, 200),
        (False, True, None, 200),
        (True, True, Broken("reset"), 200),
        (True, False, UpstreamFailed("all"), 502),
        (False, True, Broken("reset"), 502),
        (False, False, InternalError("ours"), 500),
        (True, True, ClientGone("left"), 499),
        (True, False, ClientGone("left"), 499),
        (False, True, ClientGone("left"), 499),
    ],
)
def test_the_status_is_what_the_client_was_sent(
    stream: bool, content: bool, error: GatewayError | None, status: int
) -> None:
    """A stream that broke after it began was sent 200, and its code says how it broke; nobody saw 499 but us."""
    exchange = exchange_of(QWEN, request=chat(stream=stream))
    exchange.error = error
    exchange.running.first_content = exchange.started if content else None
    record = record_of(exchange)
    assert (record.status, record.error_code) == (status, None if error is None else error.code)
    assert record.client_gone is isinstance(error, ClientGone)


def test_an_embedding_is_never_a_stream() -> None:
    exchange = exchange_of(QWEN, request=embedding())
    exchange.error = Broken("reset")
    assert not exchange.streams
    assert (record_of(exchange).stream, record_of(exchange).status) == (False, 502)


# --- what can be learnt from it -------------------------------------------------------------------------------------


def answered(text: str, read: Read = UNREAD, caller: Caller = ANONYMOUS) -> Record:
    """The record of a chat that was answered with this text, once it has been looked back at."""
    exchange = exchange_of(QWEN, request=chat(messages=(Message("user", (TextPart("What is 2+2?"),)),)), caller=caller)
    assert exchange.noticing is not None and exchange.plan is not None
    exchange.planned = Planned(exchange.plan, read)
    exchange.noticing.see(Text(text))
    exchange.running.first_content = exchange.started
    return record_of(exchange, looked_back(exchange))


def test_what_was_seen_of_an_answer_is_learnt_from() -> None:
    """Without it a model that refuses everything looks as good as any."""
    refused, kind = answered("I'm sorry, but I can't help with that.").noticed, answered("It is 4.").noticed
    assert refused is not None and kind is not None
    assert (refused.refused, kind.refused) == (True, False)


def test_who_asked_what_is_remembered_without_its_words() -> None:
    """Asking again tells that the first answer was no good, but only if it is the same caller's."""
    mine, yours = answered("4", caller=Caller(key_id="a")).ask, answered("4", caller=Caller(key_id="b")).ask
    assert mine is not None and yours is not None
    assert (mine.same, mine.place == yours.place) == (yours.same, False)
    stripped = answered("4", Read(text="2+2?", sketch=b"\x7f\x00")).ask
    assert stripped is not None
    assert stripped.same != mine.same and stripped.vector and not mine.vector


def test_what_never_began_or_is_no_chat_teaches_nothing() -> None:
    for exchange in (exchange_of(), exchange_of(QWEN, request=embedding())):
        assert looked_back(exchange) == NOTHING
    silent = exchange_of(QWEN)
    assert looked_back(silent).noticed is None


def test_a_refusal_at_the_door_is_a_record() -> None:
    record = refusal("chat", "req-9", ModelNotFound("none"), 50.0, 0.25)
    assert (record.request_id, record.root_id, record.status, record.error_code) == (
        "req-9",
        "req-9",
        404,
        "model_not_found",
    )
    assert (record.started_at, record.seconds, record.overhead_seconds, record.plan) == (50.0, 0.25, 0.25, None)
