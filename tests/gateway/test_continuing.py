"""A caller who asked for it gets the rest of a broken answer from another model, as one answer that says so, paid for
as both were; and nobody else's words where it was not asked for or cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.card import Ability, Card
from app.core.clock import ManualClock
from app.core.errors import Broken, GatewayError, OutOfTime
from app.core.events import Event, Fault, Finish, Reasoning, Start, Text, ToolCall, Usage
from app.core.messages import Format
from app.core.money import Price, Tokens
from app.core.record import Record
from app.core.request import AnyRequest, Request
from app.core.spending import Seats
from app.core.tasks import TaskOwner
from app.gateway.account import Account
from app.gateway.attempts import Attempts
from app.gateway.continuing import SAID_MOST
from app.gateway.gateway import Gateway
from app.gateway.settle import Settlement
from app.gateway.stages import Everyone
from app.routing.registry import Registry
from tests.core.nouns import chat, paid, terms
from tests.gateway.fakes import FakeUpstream, PlainPlanner, Script, Step, Told, good, start
from tests.gateway.talks import assistant, user

CHATS = frozenset({Ability.CHAT, Ability.TOOLS, Ability.JSON_OBJECT, Ability.MANY})
PRICE = Price(1_000_000, 2_000_000, 0, 0, 0)


def breaks() -> list[Step]:
    return [start("a"), Text("Hello ", raw=b"1"), Broken("the connection broke")]


def end() -> list[Step]:
    return [Finish("stop", extra={"x": 1}), Usage(Tokens(20, 3))]


def rest(*before: Step) -> list[Step]:
    return [start("b"), *before, Text(" world", raw=b"2"), *end()]


class Seated(Everyone):
    """Lets everybody in, and gives him a seat that is to be given back."""

    async def enter(
        self, account: Account, caller: Caller, request: AnyRequest, card: Card, *, at_last: bool
    ) -> AnyRequest:
        account.seats = Seats("seats", 1, "me")
        return request


class Rig:
    """A gateway over two models, of which the first does as told."""

    def __init__(
        self, first: Sequence[Step], second: Sequence[Step] | None = None, *more: Sequence[Step], attempts: int = 3
    ) -> None:
        clock = ManualClock()
        self.health = Told(clock)
        self.records: list[Record] = []
        self.tasks = TaskOwner(lambda where, error: pytest.fail(f"{where}: {error!r}"))
        self.told_used: list[int] = []
        settlement = Settlement([self.records.append], self.tasks, lambda where, error: None, self.leave)
        self.gateway = Gateway(
            PlainPlanner(self.health.demoted),
            Attempts(self.health, attempts, self.sleep),
            settlement,
            clock,
            admit=Seated(),
        )
        cards = [paid(f"s{index}/m", abilities=CHATS, price=PRICE) for index in range(2 + len(more))]
        self.gateway.registry = Registry(cards)
        scripts = (first, rest() if second is None else second, *more)
        self.upstreams = [FakeUpstream(f"s{index}", script=Script(each)) for index, each in enumerate(scripts)]
        self.gateway.upstreams = {each.name: each for each in self.upstreams}

    async def sleep(self, seconds: float) -> None: ...

    async def leave(self, account: Account, tokens_used: int) -> None:
        self.told_used.append(tokens_used)

    async def ask(self, *, continues: bool = True, **fields: Any) -> list[Event]:
        fields = {"messages": (user("Hi"),), "stream": True, "body": {}, "input_bytes": 40, **fields}
        request = chat(terms=terms(continues=continues), **fields)
        seen = [event async for event in self.gateway.answer(ANONYMOUS, request)]
        await self.tasks.drain(5)
        return seen

    @property
    def record(self) -> Record:
        [record] = self.records
        return record


def text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


async def test_another_model_goes_on_and_the_answer_is_one() -> None:
    rig = Rig(breaks())
    seen = await rig.ask()
    assert text(seen) == "Hello world", "the space between them is there once"
    assert [type(event) for event in seen] == [Start, Text, Text, Finish, Usage]
    served = seen[0].served  # type: ignore[union-attr]
    assert served is not None
    assert (served.model, served.continued_from, served.attempts) == ("s1/m", "s0/m", 2)
    assert seen[2].raw is None and seen[3].extra is None  # type: ignore[union-attr]
    asked = rig.upstreams[1].asked[0]
    assert isinstance(asked, Request) and asked.messages[-2].text == "Hello "


async def test_usage_and_cost_are_those_of_both() -> None:
    rig = Rig(breaks())
    usage = (await rig.ask())[-1]
    assert isinstance(usage, Usage) and usage.estimated and usage.details is None
    first, second = rig.record.attempts
    assert first.tokens is not None and second.tokens == Tokens(20, 3)
    assert usage.tokens == first.tokens + second.tokens == rig.record.tokens
    assert first.cost_nano and second.cost_nano
    assert usage.cost_nano == first.cost_nano + second.cost_nano == rig.record.cost_nano
    assert (rig.record.error_code, rig.record.model, rig.record.fallback_from) == (None, "s1/m", "s0/m")
    assert rig.record.usage_estimated and rig.record.status == 200


async def test_a_third_may_go_on_where_the_second_breaks_too() -> None:
    rig = Rig(breaks(), [start("b"), Text("my "), Broken("again")], [start("c"), Text("friend"), *end()])
    assert text(await rig.ask()) == "Hello my friend"
    assert rig.record.tokens is not None and len(rig.record.attempts) == 3


async def test_it_does_not_go_on_for_ever() -> None:
    scripts: list[list[Step]] = [[start("m"), Text("on and "), Broken("again")] for _ in range(5)]
    rig = Rig(*scripts)
    seen = await rig.ask()
    assert isinstance(seen[-1], Fault) and text(seen) == "on and " * 3


async def test_all_attempts_together_are_no_more_than_the_most() -> None:
    """Each model that goes on would have as many tries as the whole request."""
    rig = Rig(breaks(), *[[Broken("away as well")]] * 3)
    assert isinstance((await rig.ask())[-1], Fault)
    assert len(rig.record.attempts) == 3


async def test_where_no_attempt_is_left_the_answer_ends_as_it_broke() -> None:
    rig = Rig(breaks(), attempts=1)
    seen = await rig.ask()
    assert isinstance(seen[-1], Fault) and str(seen[-1].error) == "the connection broke" and text(seen) == "Hello "
    assert len(rig.record.attempts) == 1 and rig.record.tokens == rig.record.attempts[0].tokens


@pytest.mark.parametrize("second", [None, [Broken("away as well")]], ids=["goes on", "cannot"])
async def test_the_rate_of_tokens_keeps_what_all_of_them_used(second: list[Step] | None) -> None:
    """Who lets answers break off would get his tokens a minute back, and have more of them than his key allows."""
    rig = Rig([start("a"), Text("word " * 400), Broken("cut")], second)
    await rig.ask()
    assert rig.record.tokens is not None and rig.record.tokens.total > 400
    assert rig.told_used == [rig.record.tokens.total]


async def test_where_nobody_can_go_on_the_answer_ends_as_it_broke() -> None:
    rig = Rig(breaks(), [Broken("away as well")])
    seen = await rig.ask()
    assert isinstance(seen[-1], Fault) and str(seen[-1].error) == "the connection broke"
    first = rig.record.attempts[0]
    assert rig.record.tokens == first.tokens and rig.record.error_code == "upstream_failed"
    assert rig.record.status == 200 and rig.record.first_token_seconds is not None


async def test_a_client_that_leaves_meanwhile_still_owes_what_it_got() -> None:
    rig = Rig(breaks(), [start("b"), None])
    request = chat(terms=terms(continues=True), messages=(user("Hi"),), stream=True, body={}, input_bytes=40)
    events = rig.gateway.answer(ANONYMOUS, request)
    assert [type(await anext(events)) for _ in range(2)] == [Start, Text]

    async def next_one() -> None:
        await anext(events)

    waiting = asyncio.ensure_future(next_one())
    while rig.upstreams[1].script.opened == 0:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await rig.tasks.drain(5)
    assert rig.record.tokens == rig.record.attempts[0].tokens and rig.record.cost_nano
    assert rig.record.client_gone and all(each.script.opened == each.script.closed for each in rig.upstreams)


async def test_thoughts_of_who_goes_on_are_not_put_behind_words() -> None:
    rig = Rig(breaks(), rest(Reasoning("hm")))
    assert not any(isinstance(event, Reasoning) for event in await rig.ask())


async def test_where_only_thoughts_came_the_answer_begins_again() -> None:
    rig = Rig([start("a"), Reasoning("hm"), Broken("cut")], rest(Reasoning("so", raw=b"x")))
    seen = await rig.ask()
    assert [event.text for event in seen if isinstance(event, Reasoning)] == ["hm", "so"]
    assert text(seen) == " world" and rig.upstreams[1].asked[0].messages == (user("Hi"),)  # type: ignore[union-attr]


ENDS: dict[str, tuple[list[Step], dict[str, Any]]] = {
    "it was not asked for": (breaks(), {"continues": False}),
    "a tool was called": ([start("a"), ToolCall(0, "{", "c1", "f"), Broken("cut")], {}),
    "it was refused": ([start("a"), Text("I will not", refusal=True), Broken("cut")], {}),
    "it was over": ([start("a"), Text("Hello"), Finish("stop"), Broken("cut")], {}),
    "a format is demanded": (breaks(), {"format": Format("json_object")}),
    "there are several choices": (breaks(), {"n": 2}),
    "the caller's time is over": ([*breaks()[:2], OutOfTime("late", phase="total")], {}),
    "the caller began it": (breaks(), {"messages": (user("Hi"), assistant("Well,"))}),
}


@pytest.mark.parametrize("why", ENDS)
async def test_elsewhere_it_is_an_error_as_ever(why: str) -> None:
    """Another model's words must never be spliced in silently, or where they break what the caller parses."""
    first, fields = ENDS[why]
    rig = Rig(first)
    seen = await rig.ask(**fields)
    assert isinstance(seen[-1], Fault) and rig.upstreams[1].script.opened == 0
    assert seen[0].served.continued_from is None  # type: ignore[union-attr]


async def test_who_breaks_before_the_first_word_is_fallen_over_from_as_ever() -> None:
    rig = Rig([Broken("at once")], good("other"))
    assert text(await rig.ask()) in ("other", " world")
    assert rig.record.attempts[0].outcome == "broken"


async def test_an_answer_of_one_model_alone_ends_as_it_broke() -> None:
    rig = Rig(breaks())
    rig.gateway.registry = Registry([paid("s0/m", abilities=CHATS)])
    assert isinstance((await rig.ask())[-1], Fault)


async def test_where_nobody_answers_at_all_it_keeps_its_status() -> None:
    rig = Rig([Broken("at once")], [Broken("at once")])
    with pytest.raises(GatewayError):
        await rig.ask()


async def test_an_answer_too_long_to_be_kept_ends_as_it_broke() -> None:
    """What is held for one stream has a bound, whatever its caller asked for."""
    rig = Rig([start("a"), Text("x" * (SAID_MOST + 1)), Broken("cut")])
    assert isinstance((await rig.ask())[-1], Fault) and rig.upstreams[1].script.opened == 0
