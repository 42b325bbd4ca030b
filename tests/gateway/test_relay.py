"""What passes the relay is what the caller is told, and what the record says: the two must not differ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from app.core.card import Card
from app.core.errors import Broken
from app.core.events import Event, Fault, Finish, Reasoning, Start, Text, ToolCall, Usage
from app.core.money import Price, Tokens
from app.core.record import Served
from app.gateway.account import Account
from app.gateway.exchange import Exchange
from app.gateway.relay import relay
from tests.core.nouns import card, chat, paid
from tests.gateway.fakes import exchange_of, move, start

PRICE = Price(1_000, 2_000, 100, 1_000, 1_000)
PRICED, UNPRICED = paid("claude/opus", price=PRICE), card("gpu/qwen")


def begun(card: Card = PRICED, input_bytes: int = 0) -> Exchange:
    """An exchange whose candidate is being asked."""
    exchange = exchange_of(card, request=chat(input_bytes=input_bytes))
    assert exchange.plan is not None
    exchange.attempt_begins(exchange.plan.candidates[0])
    return exchange


class Answering:
    """Plays an answer, allows so many extensions of it, and notes whether it was closed early."""

    def __init__(self, exchange: Exchange, events: Sequence[Event], extensions: int = 0, by: int = 1) -> None:
        self.exchange = exchange
        self.events = events
        self.extensions = extensions
        self.by = by
        self.asked = 0
        self.closed_after: int | None = None

    async def play(self) -> AsyncGenerator[Event, None]:
        for place, event in enumerate(self.events):
            try:
                yield event
            except GeneratorExit:
                self.closed_after = place + 1
                raise

    async def extend(self, account: Account) -> bool:
        await asyncio.sleep(0)
        self.asked += 1
        if self.asked > self.extensions:
            return False
        assert account.room is not None
        account.room = (account.room[0] + self.by, account.room[1] + 100)
        return True

    async def relayed(self) -> list[Event]:
        return [event async for event in relay(self.exchange, self.play(), self.extend)]


async def relayed(exchange: Exchange, events: Sequence[Event]) -> list[Event]:
    return await Answering(exchange, events).relayed()


async def test_the_start_says_who_serves() -> None:
    """Headers and the `tierway` object are made from it."""
    events = await relayed(begun(PRICED), [start(), Text("a"), Finish("stop")])
    assert isinstance(events[0], Start)
    assert events[0].served == Served("req-1", "claude/opus", "claude", "it can do this", 1)


@pytest.mark.parametrize("place", range(4))
async def test_usage_is_the_last_event_wherever_it_came(place: int) -> None:
    """Clients that asked for usage read it from the last chunk."""
    rest: list[Event] = [start(), Text("a"), Finish("stop")]
    usage = Usage(Tokens(prompt=10, completion=5))
    exchange = begun()
    events = await relayed(exchange, [*rest[:place], usage, *rest[place:]])
    assert events == [*rest, usage]
    assert exchange.running.usage is usage


async def test_an_answer_costs_what_its_tokens_cost() -> None:
    exchange = begun(PRICED)
    events = await relayed(exchange, [start(), Text("a"), Finish("stop"), Usage(Tokens(prompt=10, completion=5))])
    assert events[-1] == Usage(Tokens(prompt=10, completion=5), cost_nano=20)


async def test_an_unknown_price_is_not_zero() -> None:
    """It would be reported as savings, and pass every budget."""
    events = await relayed(begun(UNPRICED), [start(), Text("a"), Finish("stop"), Usage(Tokens(10, 5))])
    assert events[-1] == Usage(Tokens(10, 5), cost_nano=None)


async def test_a_usage_nobody_told_is_estimated_and_says_so() -> None:
    """From the bytes of the prompt and of all that was answered: text, thinking and tool arguments."""
    exchange = begun(PRICED, input_bytes=400)
    spoken: list[Event] = [start(), Reasoning("think"), Text("text"), ToolCall(0, "args"), Finish("stop")]
    events = await relayed(exchange, spoken)
    assert events[-1] == Usage(Tokens(prompt=100, completion=4), estimated=True, cost_nano=108)


async def test_every_script_is_estimated_by_its_bytes() -> None:
    """A Chinese answer is three bytes a character, and about a token: by characters it would cost a quarter."""
    events = await relayed(begun(), [start(), Text("模型会选择"), Finish("stop")])
    assert isinstance(events[-1], Usage)
    assert events[-1].tokens.completion == 4


async def test_a_fault_ends_the_answer_and_is_remembered() -> None:
    """No usage after it: the stream is over."""
    exchange, first, error = begun(), start(), Broken("reset")
    events = await relayed(exchange, [first, Text("a"), Usage(Tokens(1, 1)), Fault(error), Text("never")])
    assert events == [first, Text("a"), Fault(error)]
    assert exchange.error is error


async def test_the_first_content_and_the_finish_are_noted() -> None:
    """The time to the first token is what users feel. What was held back before it comes at the same moment."""
    exchange = begun()

    async def upstream() -> AsyncGenerator[Event, None]:
        move(exchange, 2.0)
        yield start()
        yield Reasoning("hm")
        move(exchange, 5.0)
        yield Text("a")
        yield Finish("length")

    async for _ in relay(exchange, upstream(), Answering(exchange, ()).extend):
        pass
    assert exchange.running.first_content == exchange.started + 2.0
    assert exchange.finish == "length"


# --- an answer that outgrows what is held for it ----------------------------------------------------------------------


async def test_what_came_at_once_is_held_for_whole() -> None:
    """An upstream that sends faster than it is read would be ever further ahead of what is held, and of the budget."""
    exchange = begun()
    exchange.account.room = (1, 1_000)
    answering = Answering(exchange, [start(), Text("abcdefgh", pieces=8), Finish("stop")], extensions=9, by=3)
    await answering.relayed()
    assert exchange.account.room[0] >= 8 and answering.asked == 3
    exchange.account.room = (1, 1_000)
    refused = Answering(exchange, [start(), Text("abcdefgh", pieces=8), Finish("stop")], extensions=1, by=3)
    assert [event for event in await refused.relayed() if isinstance(event, Text)] == []


PIECES: list[Event] = [
    start(),
    Text("a"),
    Reasoning("b"),
    ToolCall(0, "c"),
    Text("d"),
    Finish("stop"),
    Usage(Tokens(1, 4)),
]


async def test_an_answer_goes_on_as_long_as_more_may_be_held() -> None:
    exchange = begun()
    exchange.account.room = (1, 100)
    answering = Answering(exchange, PIECES, extensions=3)
    assert (await answering.relayed())[:-1] == PIECES[:-1]
    assert answering.asked == 3 and exchange.stopped is None


async def test_an_answer_that_may_cost_no_more_ends_as_one_that_is_long_enough() -> None:
    """The upstream stops at that moment, not when the client has read the rest; and the last word says why."""
    exchange = begun()
    exchange.account.room = (1, 100)
    answering = Answering(exchange, PIECES, extensions=1)
    *before, finish, usage = await answering.relayed()
    assert before == PIECES[:3] and finish == Finish("length")
    assert isinstance(usage, Usage) and usage.stopped == "budget" and usage.estimated
    assert answering.closed_after == 4
    assert (exchange.stopped, exchange.finish, exchange.error) == ("budget", "length", None)


async def test_large_pieces_outgrow_a_hold_by_their_bytes() -> None:
    exchange = begun()
    exchange.account.room = (10, 8)
    events = await relayed(exchange, [start(), Text("12345678"), Text("9"), Finish("stop")])
    assert events[1:3] == [Text("12345678"), Finish("length")]


async def test_what_holds_no_text_is_no_piece() -> None:
    """Signatures, annotations and empty first deltas cost nothing: a request for one token gets it."""
    exchange = begun()
    exchange.account.room = (1, 100)
    quiet: list[Event] = [start(), Text(""), Reasoning("", signature="s"), ToolCall(0, "", "id", "f"), Text("a")]
    assert (await relayed(exchange, [*quiet, Finish("stop")]))[:-1] == [*quiet, Finish("stop")]


async def test_an_answer_that_came_whole_is_not_cut() -> None:
    """It is paid for, and its upstream's own words of usage come after it."""
    exchange = begun()
    exchange.account.room = (1, 1)
    whole = Start("c", "m", 1, "chat", body={"choices": []})
    answering = Answering(exchange, [whole, Text("long enough"), Finish("stop"), Usage(Tokens(2, 3))])
    events = await answering.relayed()
    assert events[-1] == Usage(Tokens(2, 3), cost_nano=8) and answering.asked == 0


async def test_pieces_that_came_as_one_are_counted_each() -> None:
    """Or a model that sends many at once could say more than was paid for."""
    exchange = begun()
    exchange.account.room = (2, 100)
    events = await Answering(exchange, [start(), Text("abc", pieces=3), Finish("stop")]).relayed()
    assert exchange.stopped == "budget" and not any(isinstance(event, Text) for event in events)
