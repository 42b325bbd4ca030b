"""Invoices worked out by hand, in comments, from the wire to the last nano-dollar. M is a million tokens."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.core.events import Start, Usage
from app.core.money import Price, Tokens, cost_nano
from app.spend.charge import Ended, charge
from app.spend.prices import price_of
from tests.spend.bounds_cases import BOUND
from tests.spend.test_prices import NOW, upstream, vendor
from tests.wire import chat_cases, messages_cases

OPENAI = "https://api.openai.com/v1"


def claude(model: str) -> Price:
    price = price_of(upstream("anthropic"), model, None, NOW)
    assert price is not None
    return price


def openai(model: str) -> Price:
    price = vendor(OPENAI, model)
    assert price is not None
    return price


def usage_of(events: list[Any]) -> Usage:
    usage = events[-1]
    assert isinstance(usage, Usage)
    return usage


def billed(events: list[Any], price: Price) -> int:
    """What the attempt is charged."""
    owed = charge(Ended(usage=usage_of(events), streamed=True), BOUND, price)
    assert owed.exact
    return owed.nano


def replied(usage: dict[str, Any]) -> list[Any]:
    """A reply of Claude's with that usage."""
    text = [{"type": "text", "text": "Hi."}]
    message = {"type": "message", "id": "msg_1", "content": text, "stop_reason": "end_turn", "usage": usage}
    return messages_cases.whole(message)


def streamed(begin: dict[str, Any], end: dict[str, Any]) -> list[Any]:
    """The same as a stream: some counts come at the beginning, some at the end."""
    return messages_cases.read(
        messages_cases.sse(messages_cases.begun(**begin), *messages_cases.text(0, "Hi."), *messages_cases.ended(**end))
    )


def test_claude_with_cache_reads_and_both_kinds_of_writes() -> None:
    """Haiku 4.5: 1 USD in, 5 out, 0.10 cache read, 1.25 and 2 cache writes, per M.

    7 fresh            x 1.00 =      7.00
    5,000 read         x 0.10 =    500.00
    400 for 5 minutes  x 1.25 =    500.00
    600 for an hour    x 2.00 =  1,200.00
    4 out              x 5.00 =     20.00
                               ---------- millionths of a dollar
                                 2,227.00
    """
    stream, about = messages_cases.golden("cache")
    price = claude("claude-haiku-4-5-20251001")
    assert billed(messages_cases.read(stream), price) == 2_227_000
    assert billed(messages_cases.whole(about["reply"]), price) == 2_227_000


def test_claude_that_thinks_bills_thinking_as_output() -> None:
    """Opus 4.6: 5 USD in, 25 out. 50 in, 90 out of which 70 are thinking: 50 x 5 + 90 x 25 = 2,500 millionths."""
    stream, about = messages_cases.golden("thinking")
    assert billed(messages_cases.read(stream), claude("claude-opus-4-6")) == 2_500_000
    assert billed(messages_cases.whole(about["reply"]), claude("claude-opus-4-6")) == 2_500_000
    assert usage_of(messages_cases.read(stream)).tokens.reasoning == 70


LONG = {
    "input_tokens": 150_000,
    "cache_read_input_tokens": 40_000,
    "cache_creation_input_tokens": 15_000,
    "cache_creation": {"ephemeral_5m_input_tokens": 10_000, "ephemeral_1h_input_tokens": 5_000},
}


def test_a_long_prompt_costs_the_long_price_in_everything() -> None:
    """Sonnet 4.5, beyond 200,000 tokens of prompt, cached ones included: 6 in, 22.50 out, 0.60 read, 7.50 and 12
    writes.

    150,000 fresh  x  6.00 =   900,000
     40,000 read   x  0.60 =    24,000
     10,000 5 min  x  7.50 =    75,000
      5,000 hour   x 12.00 =    60,000
      1,000 out    x 22.50 =    22,500
                             --------- millionths of a dollar
                             1,081,500
    """
    price = claude("claude-sonnet-4-5")
    assert billed(replied({**LONG, "output_tokens": 1_000}), price) == 1_081_500_000
    assert billed(streamed(LONG, {"output_tokens": 1_000}), price) == 1_081_500_000


def test_a_prompt_just_short_of_long_costs_the_usual_price() -> None:
    """The same with 5,000 fresh tokens less, 200,000 in all: 3, 15, 0.30, 3.75 and 6.

    145,000 x 3 + 40,000 x 0.30 + 10,000 x 3.75 + 5,000 x 6 + 1,000 x 15 = 435,000 + 12,000 + 37,500 + 30,000 + 15,000
    """
    usage = {**LONG, "input_tokens": 145_000, "output_tokens": 1_000}
    assert billed(replied(usage), claude("claude-sonnet-4-5")) == 529_500_000


def test_fractions_of_a_nano_dollar_are_rounded_up_once() -> None:
    """Haiku 5.5 reads its cache for 0.01 USD per M, 10 nano-dollars a token. At 0.0375 it would be 37.5: three of them
    are 112.5, billed as 113, and not 3 x 38."""
    usage = {"input_tokens": 0, "cache_read_input_tokens": 3, "output_tokens": 0}
    assert billed(replied(usage), claude("claude-haiku-5-5")) == 30
    assert cost_nano(Tokens(3), Price(37_500, 0, 0, 0, 0)) == 113


def test_openai_with_cached_tokens_and_reasoning() -> None:
    """gpt-6-luna: 0.10 in, 0.01 cached, 0.50 out. 19 in of which 8 were cached, 10 out of which 4 are reasoning:
    11 x 0.10 + 8 x 0.01 + 10 x 0.50 = 6.18 millionths."""
    talk = next(each for each in chat_cases.conversations() if each.name == "openai_text")
    price = openai("gpt-6-luna")
    assert billed(talk.events(), price) == billed(talk.whole(), price) == 6_180
    assert usage_of(talk.whole()).tokens.reasoning == 4


def test_openai_with_cache_writes_and_a_long_prompt() -> None:
    """gpt-6-astra beyond 272,000: 20 in, 2 cached, 25 written, 75 out.

    100,000 fresh x 20 + 150,000 cached x 2 + 50,000 written x 25 + 2,000 out x 75
    = 2,000,000 + 300,000 + 1,250,000 + 150,000 = 3,700,000 millionths
    """
    usage = {
        "prompt_tokens": 300_000,
        "completion_tokens": 2_000,
        "total_tokens": 302_000,
        "prompt_tokens_details": {"cached_tokens": 150_000, "cache_write_tokens": 50_000},
        "completion_tokens_details": {"reasoning_tokens": 1_500},
    }
    chunks = [chat_cases.chunk({"role": "assistant", "content": "Hi."}), chat_cases.chunk({}, "stop", usage=usage)]
    events = chat_cases.read([*chunks, b"data: [DONE]\n\n"])
    assert billed(events, openai("gpt-6-astra")) == 3_700_000_000


@pytest.mark.parametrize("name", [each for each in messages_cases.GOLDEN if messages_cases.golden(each)[1]["reply"]])
def test_claude_costs_the_same_streamed_or_not(name: str) -> None:
    """Whoever turns streaming on must not pay another price."""
    stream, about = messages_cases.golden(name)
    whole, pieces = messages_cases.whole(about["reply"]), messages_cases.read(stream)
    price = claude("claude-opus-5-5")
    assert billed(pieces, price) == billed(whole, price) > 0
    assert isinstance(pieces[0], Start) and isinstance(whole[0], Start)
    assert pieces[0].prompt == whole[0].prompt, "what is charged for an answer that breaks off"


@pytest.mark.parametrize(
    "talk", [each for each in chat_cases.conversations() if each.usage], ids=lambda each: each.name
)
def test_openai_costs_the_same_streamed_or_not(talk: chat_cases.Conversation) -> None:
    price = openai("gpt-6-astra")
    assert billed(talk.events(), price) == billed(talk.whole(), price) > 0


def test_a_stream_s_prompt_is_known_from_its_first_event() -> None:
    """A caller who leaves early pays for the prompt what it costs, and not what it might have cost."""
    start = streamed(LONG, {"output_tokens": 1_000})[0]
    assert start.prompt == Tokens(205_000, 0, 40_000, 15_000, 5_000)


def test_a_cache_write_of_unknown_length_is_the_dear_one_where_an_hour_was_asked_for() -> None:
    """Some hosts of Claude do not say how long what was written is kept; it would be billed too low."""
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 1_000, "output_tokens": 1}
    body = {"type": "message", "id": "m", "content": [], "stop_reason": "end_turn", "usage": usage}
    for ttl, hour in (("1h", 1_000), ("5m", 0)):
        request = messages_cases.ask(extra={"cache_control": {"type": "ephemeral", "ttl": ttl}})
        told = usage_of(messages_cases.whole(orjson.dumps(body), request))
        assert told.tokens.cache_write_1h == hour
    only_by_time = {"input_tokens": 10, "cache_creation": {"ephemeral_5m_input_tokens": 4}, "output_tokens": 1}
    assert usage_of(replied(only_by_time)).tokens == Tokens(14, 1, cache_write=4)
