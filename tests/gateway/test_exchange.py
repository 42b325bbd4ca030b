"""The record of a request: what dashboards, bills and explanations are made of."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.clock import ManualClock
from app.core.errors import (
    Broken,
    ClientGone,
    GatewayError,
    InternalError,
    ModelNotFound,
    OutOfTime,
    Rejected,
    Throttled,
    UpstreamFailed,
)
from app.core.events import Finish, Start, Text, Usage
from app.core.messages import Message, TextPart
from app.core.money import Tokens
from app.core.plan import Candidate, Plan
from app.core.record import Attempt, Record, Served
from app.core.verdict import Verdict
from app.gateway.exchange import DEADLINE_SECONDS, NOTHING, Exchange, refusal
from app.gateway.planning import Planned
from app.gateway.reading import UNREAD, Read
from tests.core.nouns import card, chat, embedding, paid, terms
from tests.gateway.fakes import exchange_of, move, planned

QWEN, OPUS, BACKUP = card("gpu/qwen"), paid("claude/opus"), card("gpu/backup")


def attempt(exchange: Exchange, place: int, error: BaseException | None, seconds: float = 0.0) -> Attempt:
    """One attempt at the plan's candidate at this place."""
    assert exchange.plan is not None
    exchange.attempt_begins(exchange.plan.candidates[place])
    move(exchange, seconds)
    exchange.attempt_ends(error)
    return exchange.attempts[-1]


# --- attempts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome", "blame"),
    [
        (None, "ok", None),
        (Broken("reset"), "broken", "upstream"),
        (Throttled("429"), "throttled", "upstream"),
        (OutOfTime("deadline", phase="total"), "timeout", "caller"),
        (Rejected("too hot"), "invalid_value", "caller"),
        (InternalError("ours"), "internal_error", "us"),
        (KeyError("ours"), "internal_error", "us"),
        (asyncio.CancelledError(), "left", "caller"),
        (GeneratorExit(), "left", "caller"),
    ],
)
def test_an_attempt_says_how_it_ended_and_whose_fault_it_was(
    error: BaseException | None, outcome: str, blame: str | None
) -> None:
    """Alerts count by it: an upstream must not be blamed for a client that left, nor a client for our bugs."""
    exchange = exchange_of(QWEN)
    assert attempt(exchange, 0, error, 1.5) == Attempt("gpu/qwen", "gpu", outcome, blame, 1.5)
    assert exchange.record().attempts == tuple(exchange.attempts)


def test_what_the_gateway_added_is_what_no_upstream_took() -> None:
    exchange = exchange_of(QWEN, OPUS)
    move(exchange, 0.25)
    attempt(exchange, 0, Broken("reset"), 2.0)
    attempt(exchange, 1, None, 3.0)
    record = exchange.record()
    assert (record.seconds, record.overhead_seconds) == (5.25, 0.25)


def test_a_pause_between_attempts_is_not_the_gateways_own_work() -> None:
    """Else every retry looks like a slow gateway."""
    exchange = exchange_of(QWEN)
    attempt(exchange, 0, Throttled("429"), 1.0)
    exchange.waits(2.0)
    move(exchange, 2.5)
    attempt(exchange, 0, None, 1.0)
    assert (exchange.record().seconds, exchange.record().overhead_seconds) == (4.5, 0.5)


def test_time_left_counts_to_the_callers_deadline_and_not_below_zero() -> None:
    """A negative wait would be a wait of none, over and over."""
    clock = ManualClock()
    exchange = exchange_of(QWEN, request=chat(terms=terms(deadline=clock.monotonic() + 10)), clock=clock)
    clock.advance(4)
    assert exchange.remaining() == 6
    clock.advance(10)
    assert exchange.remaining() == 0
    assert exchange_of(QWEN).remaining() == DEADLINE_SECONDS


# --- who answers for whom -------------------------------------------------------------------------------------------

SIMPLE = Verdict(0.2, 0.9, "docs", "v1")
NAMED = (Candidate(OPUS, "asked for by name"), Candidate(BACKUP, "fallback", stands_in_for="claude/opus"))


@pytest.mark.parametrize(
    ("candidates", "place", "stands_in_for"),
    [
        ((Candidate(QWEN, "local"), Candidate(OPUS, "can")), 0, None),
        ((Candidate(QWEN, "local"), Candidate(OPUS, "can")), 1, "gpu/qwen"),
        (NAMED, 0, None),
        (NAMED, 1, "claude/opus"),
        (NAMED[::-1], 0, "claude/opus"),
        (NAMED[::-1], 1, None),
        (NAMED[1:], 0, "claude/opus"),
    ],
)
def test_a_stand_in_says_for_whom(candidates: tuple[Candidate, ...], place: int, stands_in_for: str | None) -> None:
    """Never silently; and the model that was asked for stands in for nobody, even when it was tried last."""
    exchange = exchange_of(QWEN)
    exchange.planned = Planned(Plan(candidates, "cost"))
    exchange.attempt_begins(candidates[place])
    assert exchange.stands_in_for == stands_in_for
    assert exchange.served().fallback == stands_in_for
    assert exchange.record().fallback_from == stands_in_for


def test_before_there_is_a_plan_nobody_stands_in() -> None:
    assert exchange_of().stands_in_for is None
    assert exchange_of(QWEN).stands_in_for is None


def test_served_says_who_answers_and_why() -> None:
    own = terms(session="s-1")
    simulated = replace(OPUS, simulated=True)
    exchange = exchange_of(QWEN, request=chat(terms=own))
    made = Plan((Candidate(QWEN, "local"), Candidate(simulated, "it can")), "cost", verdict=SIMPLE)
    exchange.planned = Planned(made)
    attempt(exchange, 0, Broken("reset"))
    exchange.attempt_begins(made.candidates[1])
    exchange.defaults = ("temperature", "max_tokens")
    assert exchange.served() == Served(
        "req-1",
        "claude/opus",
        "claude",
        "it can",
        2,
        "simple",
        0.2,
        "gpu/qwen",
        "s-1",
        ("temperature", "max_tokens"),
        simulated=True,
    )


# --- the record -----------------------------------------------------------------------------------------------------


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
    attempt(exchange, 0, Broken("reset"), 1.0)
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
    record = exchange.record()
    assert {field.name: getattr(record, field.name) for field in fields(Record)} == expected


def test_what_earlier_attempts_were_charged_is_in_the_sum_once() -> None:
    """A failed attempt that was billed is part of what the answer cost; a free one after it costs nothing more."""
    exchange = exchange_of(OPUS, QWEN, BACKUP)
    for candidate, nano in zip(planned(OPUS, QWEN, BACKUP).candidates, (30, None, 5), strict=True):
        exchange.attempt_begins(candidate)
        exchange.running.charge_nano = nano
        exchange.attempt_ends(Broken("reset") if nano != 5 else None)
    assert [each.cost_nano for each in exchange.attempts] == [30, None, 5]
    assert (exchange.earlier_nano, exchange.record().cost_nano) == (30, 35)


@pytest.mark.parametrize(("n", "ended", "left"), [(1, (), [0]), (3, (1,), [0, 2]), (1, (0,), [])])
def test_an_answer_that_may_cost_no_more_ends_every_choice_that_runs(
    n: int, ended: tuple[int, ...], left: list[int]
) -> None:
    """Clients wait for the end of each; and a choice that is over has its own."""
    exchange = exchange_of(OPUS, request=chat(n=n))
    for choice in ended:
        exchange.finished(Finish("stop", choice))
    assert exchange.stop() == [Finish("length", choice) for choice in left]
    assert (exchange.stopped, exchange.finish) == ("budget", "length")
    attempt(exchange, 0, GeneratorExit())
    assert (exchange.attempts[0].outcome, exchange.attempts[0].blame) == ("stopped", None)


def test_an_attempt_remembers_what_was_told_before_the_answer_began() -> None:
    """Of an answer that breaks off before its first word, the prompt was read, and is billed."""
    exchange = exchange_of(OPUS)
    assert not exchange.begun_by(Start("c", "m", 0, "messages", prompt=Tokens(7)))
    assert exchange.running.prompt == Tokens(7)
    assert exchange.begun_by(Text("a")) and exchange.running.prompt == Tokens(7)
    exchange.attempt_begins(Candidate(OPUS, "again"))
    assert exchange.running.prompt is None


def test_what_a_broken_answer_used_counts_once_while_nobody_goes_on_with_it_yet() -> None:
    """Its tokens are taken from the key's minute: a caller that leaves meanwhile would pay twice for them."""
    exchange = exchange_of(OPUS, QWEN, request=chat(stream=True))
    exchange.attempt_begins(planned(OPUS, QWEN).candidates[0])
    exchange.running.first_content, exchange.running.usage = exchange.started, Usage(Tokens(10, 5))
    exchange.running.charge_nano = 20
    exchange.attempt_ends(Broken("reset"))
    exchange.continues("hel")
    assert exchange.record().tokens == Tokens(10, 5)
    exchange.attempt_begins(planned(OPUS, QWEN).candidates[1])
    assert (exchange.earlier_nano, exchange.record().cost_nano) == (20, 20)


def test_a_request_without_a_plan_has_a_record_all_the_same() -> None:
    """Refused requests are counted too."""
    exchange = exchange_of()
    exchange.error = ModelNotFound("none")
    record = exchange.record()
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
    record = exchange.record()
    assert (record.status, record.error_code) == (status, None if error is None else error.code)
    assert record.client_gone is isinstance(error, ClientGone)


def test_an_embedding_is_never_a_stream() -> None:
    exchange = exchange_of(QWEN, request=embedding())
    exchange.error = Broken("reset")
    assert not exchange.streams
    assert (exchange.record().stream, exchange.record().status) == (False, 502)


# --- what can be learnt from it -------------------------------------------------------------------------------------


def answered(text: str, read: Read = UNREAD, caller: Caller = ANONYMOUS) -> Record:
    """The record of a chat that was answered with this text, once it has been looked back at."""
    exchange = exchange_of(QWEN, request=chat(messages=(Message("user", (TextPart("What is 2+2?"),)),)), caller=caller)
    assert exchange.noticing is not None and exchange.plan is not None
    exchange.planned = Planned(exchange.plan, read)
    exchange.noticing.see(Text(text))
    exchange.running.first_content = exchange.started
    return exchange.record(exchange.looked_back())


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
        assert exchange.looked_back() == NOTHING
    silent = exchange_of(QWEN)
    assert silent.looked_back().noticed is None


def test_a_refusal_at_the_door_is_a_record() -> None:
    record = refusal("chat", "req-9", ModelNotFound("none"), 50.0, 0.25)
    assert (record.request_id, record.root_id, record.status, record.error_code) == (
        "req-9",
        "req-9",
        404,
        "model_not_found",
    )
    assert (record.started_at, record.seconds, record.overhead_seconds, record.plan) == (50.0, 0.25, 0.25, None)
