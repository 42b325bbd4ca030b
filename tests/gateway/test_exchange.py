"""What a request comes to while it lives: limits, bills and retries go by it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.core.clock import ManualClock
from app.core.errors import (
    Broken,
    InternalError,
    OutOfTime,
    Rejected,
    Throttled,
)
from app.core.events import Finish, Start, Text, Usage
from app.core.money import Tokens
from app.core.plan import Candidate, Plan
from app.core.record import Attempt, Served
from app.core.verdict import Verdict
from app.gateway.exchange import DEADLINE_SECONDS, Exchange
from app.gateway.planning import Planned
from app.gateway.recording import record_of
from tests.core.nouns import card, chat, paid, terms
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
    assert record_of(exchange).attempts == tuple(exchange.attempts)


def test_what_the_gateway_added_is_what_no_upstream_took() -> None:
    exchange = exchange_of(QWEN, OPUS)
    move(exchange, 0.25)
    attempt(exchange, 0, Broken("reset"), 2.0)
    attempt(exchange, 1, None, 3.0)
    record = record_of(exchange)
    assert (record.seconds, record.overhead_seconds) == (5.25, 0.25)


def test_a_pause_between_attempts_is_not_the_gateways_own_work() -> None:
    """Else every retry looks like a slow gateway."""
    exchange = exchange_of(QWEN)
    attempt(exchange, 0, Throttled("429"), 1.0)
    exchange.waits(2.0)
    move(exchange, 2.5)
    attempt(exchange, 0, None, 1.0)
    assert (record_of(exchange).seconds, record_of(exchange).overhead_seconds) == (4.5, 0.5)


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
    assert record_of(exchange).fallback_from == stands_in_for


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
    assert record_of(exchange).tokens == Tokens(10, 5)
    exchange.attempt_begins(planned(OPUS, QWEN).candidates[1])
    assert (exchange.earlier_nano, record_of(exchange).cost_nano) == (20, 20)
