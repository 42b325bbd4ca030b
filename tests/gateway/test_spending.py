"""Without these the parts of money are built and not joined: what one of them learns, none of the others hears."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from app.config.load import load
from app.config.schema import BudgetPolicy, BudgetRule
from app.config.settings import Settings
from app.core.caller import Caller
from app.core.card import Card
from app.core.clock import SystemClock
from app.core.errors import Broken, BudgetExceeded, GatewayError
from app.core.events import Finish, Text, Usage, fold
from app.core.money import Tokens
from app.core.record import Record
from app.core.tasks import TaskOwner
from app.flags import Flags
from app.gateway.account import Account
from app.gateway.attempts import Attempts
from app.gateway.gateway import Gateway
from app.gateway.routed import Basis, Routed
from app.gateway.settle import Settlement
from app.gateway.spending import FOLDER, Spending, is_limited
from app.routing.registry import Registry
from app.spend import cells
from app.spend.span import span_of
from app.spend.sums import grouped
from app.store.broadcast import Broadcast
from app.store.client import Store
from app.telemetry.metrics import Metrics
from app.telemetry.money_metrics import MoneyMetrics
from tests.core.nouns import chat, paid, terms
from tests.gateway.bank import A_NANO_A_TOKEN
from tests.gateway.fakes import FakeUpstream, Script, Step, good, start
from tests.store.live import eventually

OPUS = paid("claude/opus", price=A_NANO_A_TOKEN, max_output=8_000)
UNPRICED = paid("claude/other")
KEY = Caller(key_id="key_1", name="ci", tenant="acme")
DAY = "global:*:day"


class House:
    """A gateway with everything that money builds, over a real store."""

    def __init__(self, store: Store, folder: Path, limit: int | None = None, **policy: Any) -> None:
        rule = {"scope": "global", "period": "day", "limit": 1}
        self.settings: Settings = replace(
            load({"TIERWAY_DATA_DIR": str(folder)}),
            upstreams={},
            budgets=() if limit is None else (BudgetRule.model_validate(rule),),
            budget=BudgetPolicy.model_validate(policy),
        )
        self.limit = limit
        start_ = Flags.start(self.settings.flags)
        self.shares: Mapping[str, float] = start_.shares
        self._flags = start_
        self.prometheus = CollectorRegistry()
        self.errors: list[tuple[str, BaseException]] = []
        self.records: list[Record] = []
        self.callers: list[Caller] = [KEY]
        self.tasks, self.watchers = TaskOwner(self._on_error), TaskOwner(self._on_error)
        self.broadcast = Broadcast(store, poll=0.2)
        clock = SystemClock()
        basis = Basis(
            self.settings,
            store,
            Metrics(self.prometheus),
            clock,
            self.tasks,
            self._on_error,
            self.flags,
            lambda: self.gateway,
            lambda: (),
        )
        routed = Routed(basis, None)
        self.spending = Spending(basis, routed, MoneyMetrics(self.prometheus), lambda: self.callers)
        readers = (self.records.append, self.spending.costs.note)
        self.gateway = Gateway(
            routed.planning,
            Attempts(routed.health, 3, self._sleep),
            Settlement(readers, self.tasks, self._on_error, self.spending.admission.leave),
            clock,
            admit=self.spending.admission,
        )
        self.claude = FakeUpstream("claude", "anthropic", local=False)
        self.offers(OPUS, UNPRICED)
        self.gateway.upstreams = {"claude": self.claude}

    def flags(self) -> Flags:
        return replace(self._flags, shares=self.shares)

    def offers(self, *cards: Card) -> None:
        self.gateway.registry = Registry(cards)

    def plays(self, *scripts: list[Step]) -> None:
        self.claude.script = Script(*scripts)

    async def ask(self, tokens: int | None = 100, caller: Caller = KEY, **more: Any) -> Usage:
        fields = {"max_tokens": tokens, "terms": terms(**more), "stream": True}
        async with contextlib.aclosing(self.gateway.answer(caller, chat("claude/opus", **fields))) as events:
            usage = fold([event async for event in events]).usage
        assert usage is not None
        return usage

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def _on_error(self, where: str, error: BaseException) -> None:
        self.errors.append((where, error))

    def sample(self, name: str, **labels: str) -> float | None:
        return self.prometheus.get_sample_value(f"tierway_{name}", labels)

    async def used(self) -> tuple[int, int]:
        """What is used and held of the day."""
        counters = self.spending.budgets.counters(KEY, terms(), int(SystemClock().now() * 1_000))
        return (await self.spending.ledger.used(counters))[0]

    async def at_rest(self, used: int) -> None:
        async def is_so() -> bool:
            return await self.used() == (used, 0)

        await eventually(is_so)
        assert self.errors == []


@contextlib.asynccontextmanager
async def running(house: House) -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        await house.spending.open(stack)
        if house.limit is not None:
            house.spending.budgets.changed = {DAY: house.limit}
        stack.push_async_callback(house.tasks.drain, 5.0)
        stack.push_async_callback(house.watchers.cancel)
        house.spending.start(house.broadcast, house.watchers)
        yield house
    assert house.errors == []


async def test_what_is_spent_is_booked_once_everywhere(store: Store, tmp_path: Path) -> None:
    """The limit, the costs by model, the record and the answer say the same."""
    async with running(House(store, tmp_path, 1_000)) as house:
        house.plays(good())
        assert (await house.ask()).cost_nano == 5
        await house.at_rest(5)
        assert house.records[0].cost_nano == 5

        await house.spending.costs.sync()
        sums = await grouped(house.spending.costs.store, span_of(SystemClock().now()), "key")
        assert [(name, each[cells.COST], each[cells.REQUESTS]) for name, each in sums.items()] == [("key_1", 5, 1)]
    assert list((tmp_path / FOLDER).glob("journal-*")), "there is proof of it on the disk"


async def test_exactly_as_many_are_answered_as_there_is_money_for(store: Store, tmp_path: Path) -> None:
    """Of fifty at the same moment three, and what is left is there for a smaller one at once."""
    async with running(House(store, tmp_path, 450)) as house:
        house.plays([start(), Text("a"), Finish("stop"), Usage(Tokens(10, 120))])
        asked = await asyncio.gather(*(house.ask(120) for _ in range(50)), return_exceptions=True)
        assert sum(isinstance(each, Usage) for each in asked) == 3
        assert all(isinstance(each, (Usage, BudgetExceeded)) for each in asked)
        await house.at_rest(360)
        house.plays([start(), Text("a"), Finish("stop"), Usage(Tokens(10, 90))])
        assert (await house.ask(90)).cost_nano == 90
        await house.at_rest(450)
        assert house.sample("budget_denied_total", scope="global") == 47


async def test_a_stream_takes_what_it_needs_a_slice_at_a_time(store: Store, tmp_path: Path) -> None:
    async with running(House(store, tmp_path, 5_000, estimate="calibrated")) as house:
        house.plays([start(), *[Text("word")] * 2_500, Finish("stop"), Usage(Tokens(10, 2_500))])
        usage = await house.ask(None)
        assert (usage.cost_nano, usage.stopped) == (2_500, None)
        await house.at_rest(2_500)
        usage = await house.ask(None)
        assert usage.stopped == "budget" and usage.cost_nano is not None and 2_048 <= usage.cost_nano <= 2_500
        await house.at_rest(2_500 + usage.cost_nano)


async def test_what_fails_and_what_is_left_alone_holds_nothing(store: Store, tmp_path: Path) -> None:
    async with running(House(store, tmp_path, 1_000)) as house:
        house.plays([start(), Broken("reset")], good())
        assert (await house.ask()).cost_nano == 105
        await house.at_rest(105)
        house.plays([start(), Text("a"), None])
        events = house.gateway.answer(KEY, chat("claude/opus", max_tokens=100, stream=True))
        async for event in events:
            if isinstance(event, Text):
                break
        await events.aclose()
        await house.tasks.drain(5.0)
        used, held = await house.used()
        assert held == 0 and 105 < used <= 205


async def test_without_the_guard_spend_is_counted_and_nothing_refused(store: Store, tmp_path: Path) -> None:
    async with running(House(store, tmp_path, 10)) as house:
        house.plays(good())
        with pytest.raises(BudgetExceeded):
            await house.ask()
        house.shares = {**house.shares, "BUDGET_GUARD": 0.0}
        assert (await house.ask()).cost_nano == 5
        await house.at_rest(5)
        assert house.sample("budget_denied_total", scope="global") == 1


async def test_a_refusal_without_a_limit_is_counted_by_its_cause(store: Store, tmp_path: Path) -> None:
    async with running(House(store, tmp_path, 10)) as house:
        with pytest.raises(BudgetExceeded, match="price"):
            async with contextlib.aclosing(house.gateway.answer(KEY, chat("claude/other"))) as events:
                await anext(events)
        await house.tasks.drain(5.0)
        assert house.sample("budget_denied_total", scope="price") == 1


async def test_an_own_limit_of_a_request_binds_all_of_it(store: Store, tmp_path: Path) -> None:
    async with running(House(store, tmp_path)) as house:
        house.plays(good())
        with pytest.raises(BudgetExceeded, match="request"):
            await house.ask(200, max_cost_nano=150)
        assert (await house.ask(100, max_cost_nano=150)).cost_nano == 5


async def test_a_key_is_told_how_its_limits_stand(store: Store, tmp_path: Path) -> None:
    caller = replace(KEY, requests_per_minute=1, concurrency=1)
    async with running(House(store, tmp_path)) as house:
        house.plays(good())
        await house.ask(caller=caller)
        with pytest.raises(GatewayError) as caught:
            await house.ask(caller=caller)
        assert caught.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize(("policy", "charged"), [("full", 100), ("release", 0)])
async def test_what_a_gateway_held_that_died_is_summed_up_as_its_own(
    store: Store, tmp_path: Path, policy: str, charged: int
) -> None:
    """The reports name the key that spent it, though nobody was left to say so."""
    house = House(store, tmp_path / "a", 1_000, on_crash=policy)
    async with running(house):
        account = Account()
        await house.spending.admission.enter(account, KEY, chat(max_tokens=100), OPUS, at_last=True)
        assert account.hold is not None
        (due,) = await house.spending.ledger.held()
        booked = house.spending._cells_of(due, charged)
        assert any(cell.amount == charged and "key_1" in cell.field for cell in booked)
        assert house.spending._cells_of(due._replace(note=b""), 0)
        await house.spending.admission.leave(account, 0)


# --- what has to survive a loss of power ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budgets", "changed", "callers", "limited"),
    [
        (False, (), (), False),
        (False, (), (KEY,), False),
        (True, (), (), True),
        (False, (5,), (), True),
        (False, (0,), (), True),
        (False, (), (KEY, replace(KEY, budgets=(("day", 5),))), True),
    ],
)
def test_whoever_limits_spend_wants_it_remembered(
    budgets: bool, changed: tuple[int, ...], callers: tuple[Caller, ...], limited: bool
) -> None:
    rules = [BudgetRule.model_validate({"scope": "global", "period": "day", "limit": 1})] if budgets else []
    assert is_limited(replace(load({}), budgets=tuple(rules)), changed, callers) is limited


async def test_the_store_is_made_durable_with_the_first_limit(store: Store, tmp_path: Path) -> None:
    asked: list[bool] = []
    house = House(store, tmp_path)

    async def make_durable() -> None:
        asked.append(True)

    house.spending.ledger.make_durable = make_durable  # type: ignore[method-assign]
    async with running(house), house.broadcast.running():
        assert asked == []
        house.callers = [replace(KEY, budgets=(("day", 5),))]
        await house.broadcast.changed("keys")
        await eventually(lambda: bool(asked))
