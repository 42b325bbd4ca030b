"""What an attempt is charged: what its upstream said, else the most it can bill where money is held for it."""

from __future__ import annotations

import asyncio

import pytest

from app.core.caller import ANONYMOUS
from app.core.card import Card
from app.core.errors import Broken, ClientGone, ServerFault, Throttled
from app.core.events import Text, Usage
from app.core.money import Price, Tokens
from app.core.request import EmbeddingRequest, Request
from app.gateway.charging import charge_attempt, priced_usage
from app.gateway.exchange import Exchange
from app.gateway.recording import record_of
from tests.core.nouns import chat, embedding, paid
from tests.gateway.bank import Till
from tests.gateway.fakes import exchange_of

PRICE = Price(1_000, 2_000, 0, 0, 0)
OPUS = paid("claude/opus", price=PRICE)
UNPRICED = paid("claude/other")


def begun(request: Request | EmbeddingRequest | None = None, model: Card = OPUS) -> Exchange:
    exchange = exchange_of(model, request=request or chat(stream=True, max_tokens=100, input_bytes=400))
    assert exchange.plan is not None
    exchange.attempt_begins(exchange.plan.candidates[0])
    return exchange


async def held(request: Request | EmbeddingRequest | None = None) -> Exchange:
    """The same, with what it can cost at most being held: 200 nano-dollars for the answer."""
    exchange = begun(request)
    await Till(10**9).admission.enter(exchange.account, ANONYMOUS, exchange.request, OPUS, at_last=True)
    assert exchange.account.hold is not None
    return exchange


def most(exchange: Exchange) -> int:
    assert exchange.account.hold is not None
    return exchange.account.hold.lease.held_nano


def answered(exchange: Exchange, text: str) -> None:
    exchange.running.first_content = exchange.running.read_at = exchange.clock.monotonic()
    exchange.running.out_bytes += len(text)


# --- the answer's usage -----------------------------------------------------------------------------------------------


def test_a_request_without_a_candidate_has_no_price() -> None:
    exchange = exchange_of(request=chat(input_bytes=8))
    assert priced_usage(exchange) == Usage(Tokens(prompt=2), estimated=True)


def test_settling_again_changes_nothing() -> None:
    """It happens once when the answer ends, and once when its attempt does."""
    exchange = begun()
    exchange.running.usage = Usage(Tokens(10, 5))
    assert priced_usage(exchange) is priced_usage(exchange, Broken("reset"))
    assert exchange.running.usage == Usage(Tokens(10, 5), cost_nano=20)


def test_an_unknown_price_stays_unknown() -> None:
    exchange = begun(model=UNPRICED)
    exchange.earlier_nano = 7
    assert priced_usage(exchange).cost_nano is None


def test_what_earlier_attempts_were_charged_is_told_as_well() -> None:
    """The caller pays for both, and a budget counts both."""
    exchange = begun()
    exchange.running.usage = Usage(Tokens(10, 5))
    exchange.earlier_nano = 7
    assert priced_usage(exchange).cost_nano == 27 and exchange.running.charge_nano == 20


def test_an_answer_that_was_ended_says_by_what() -> None:
    exchange = begun()
    exchange.stop()
    assert priced_usage(exchange).stopped == "budget"


@pytest.mark.parametrize(("finish", "stopped"), [("length", "budget"), ("stop", None)])
def test_an_answer_that_was_given_less_room_says_so_where_it_ended_there(finish: str, stopped: str | None) -> None:
    exchange = begun()
    exchange.account.lowered, exchange.finish = True, finish
    assert priced_usage(exchange).stopped == stopped


async def test_what_the_upstream_says_counts_also_where_more_was_held() -> None:
    exchange = await held()
    exchange.running.usage = Usage(Tokens(10, 5))
    assert priced_usage(exchange).cost_nano == 20


async def test_an_answer_nobody_counted_is_charged_what_it_can_have_been() -> None:
    """Its tokens are an estimate for people; the limit must hold all the same."""
    exchange = await held()
    answered(exchange, "x" * 40)
    usage = priced_usage(exchange)
    assert (usage.tokens, usage.estimated) == (Tokens(100, 10), True)
    assert usage.cost_nano == most(exchange) > 120


async def test_embeddings_that_nobody_counted_are_charged_what_was_held() -> None:
    exchange = await held(embedding(inputs=("text",)))
    exchange.running.usage = Usage(Tokens(1), estimated=True)
    assert priced_usage(exchange).cost_nano == most(exchange) == 12


# --- the attempt's end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Throttled("429"), ServerFault("500")])
async def test_an_attempt_that_is_not_billed_is_charged_nothing(error: Exception) -> None:
    """And has no tokens, not those of its prompt: they would be taken from the key's minute."""
    exchange = await held()
    charge_attempt(exchange, error)
    assert (exchange.running.charge_nano, exchange.running.usage) == (0, None)
    exchange.attempt_ends(error)
    (owed,) = exchange.account.owed
    assert (owed.nano, owed.billed) == (0, None)
    assert (exchange.attempts[0].cost_nano, exchange.attempts[0].tokens, exchange.attempts[0].leased) == (0, None, True)


@pytest.mark.parametrize("error", [Broken("reset"), ClientGone("left"), asyncio.CancelledError(), KeyError("ours")])
async def test_an_attempt_that_may_be_billed_is_charged_in_full(error: BaseException) -> None:
    exchange = await held(chat(max_tokens=100, input_bytes=400))
    charge_attempt(exchange, error)
    assert exchange.running.charge_nano == most(exchange)
    exchange.attempt_ends(error)
    assert (
        exchange.account.owed[0].nano == exchange.running.charge_nano
        and record_of(exchange).cost_nano == exchange.running.charge_nano
    )


async def test_a_prompt_that_was_told_before_the_break_is_charged_as_told() -> None:
    """An overloaded model that says so in the middle of a stream has read the prompt."""
    exchange = await held()
    exchange.running.prompt = Tokens(50)
    charge_attempt(exchange, ServerFault("overloaded"))
    assert exchange.running.charge_nano is not None and 50 <= exchange.running.charge_nano < most(exchange) + 50


@pytest.mark.parametrize("error", [None, Broken("reset")])
def test_where_nothing_is_held_nothing_is_charged_for_nothing(error: Exception | None) -> None:
    exchange = begun()
    charge_attempt(exchange, error)
    assert (exchange.running.charge_nano, exchange.running.usage) == (None, None)


def test_where_nothing_is_held_what_came_is_priced() -> None:
    exchange = begun()
    assert exchange.noticing is not None
    exchange.noticing.see(Text("x" * 20))
    answered(exchange, "x" * 20)
    charge_attempt(exchange, GeneratorExit())
    assert (
        exchange.running.charge_nano == 110 and exchange.running.usage is not None and exchange.running.usage.estimated
    )
