"""Settling: one record per request, whatever ended it, and every reader gets it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.core.errors import Broken, ClientGone, InternalError, ModelNotFound
from app.core.events import Text, Usage
from app.core.money import Price, Tokens
from app.core.outcome import Noticed
from app.core.record import Record
from app.core.spending import Seats
from app.core.tasks import TaskOwner
from app.gateway.account import Account
from app.gateway.charging import charge_attempt
from app.gateway.exchange import Exchange
from app.gateway.noticing import Noticing
from app.gateway.settle import Settlement
from tests.core.nouns import chat, embedding, paid
from tests.gateway.fakes import exchange_of

OPUS = paid("claude/opus", price=Price(1_000, 2_000, 0, 0, 0))


class Office:
    """A settlement whose readers and errors are looked at."""

    def __init__(self, *more: Callable[[Record], None]) -> None:
        self.records: list[Record] = []
        self.errors: list[tuple[str, BaseException]] = []
        self.tasks = TaskOwner(self._on_error)
        self.left: list[tuple[Account, int]] = []
        self.leaving: BaseException | None = None
        self.settlement = Settlement((*more, self.records.append), self.tasks, self._on_error, self._leave)

    def _on_error(self, where: str, error: BaseException) -> None:
        self.errors.append((where, error))

    async def _leave(self, account: Account, tokens_used: int) -> None:
        await asyncio.sleep(0)
        self.left.append((account, tokens_used))
        if self.leaving is not None:
            raise self.leaving

    async def close(self, exchange: Exchange, error: BaseException | None = None) -> Record:
        self.settlement.close(exchange, error)
        await self.tasks.drain(1.0)
        return self.records[-1]


def under_way(*, content: bool = True) -> Exchange:
    exchange = exchange_of(OPUS, request=chat(stream=True, input_bytes=40))
    assert exchange.plan is not None
    exchange.attempt_begins(exchange.plan.candidates[0])
    if content:
        exchange.running.first_content, exchange.running.out_bytes = exchange.started, 20
    return exchange


async def test_a_request_that_went_well_is_told_to_every_reader_once() -> None:
    others: list[Record] = []
    office = Office(others.append)
    record = await office.close(under_way())
    assert office.records == others == [record]
    assert (record.status, record.error_code) == (200, None)


async def test_a_reader_that_fails_does_not_keep_the_others_from_theirs() -> None:
    """A metric that breaks must not lose a ledger entry."""

    def broken(record: Record) -> None:
        raise ValueError("broken")

    office = Office(broken)
    record = await office.close(under_way())
    assert record.request_id == "req-1"
    assert [(where, type(error)) for where, error in office.errors] == [("settle req-1", ValueError)]


async def test_it_runs_in_a_task_that_a_shutdown_waits_for() -> None:
    """The caller's own task may be cancelled at this very moment."""
    office = Office()
    office.settlement.close(under_way(), None)
    assert (len(office.tasks), office.records) == (1, [])
    assert await office.tasks.drain(1.0) == 0
    assert len(office.records) == 1


async def test_settling_outlives_the_request_that_was_cancelled() -> None:
    office = Office()

    async def request() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            office.settlement.close(under_way(), asyncio.CancelledError())

    task = asyncio.ensure_future(request())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await office.tasks.drain(1.0)
    assert [record.status for record in office.records] == [499]


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (GeneratorExit(), ClientGone, "client_gone"),
        (asyncio.CancelledError(), ClientGone, "client_gone"),
        (KeyboardInterrupt(), ClientGone, "client_gone"),
        (KeyError("secret"), InternalError, "internal_error"),
        (ModelNotFound("none"), ModelNotFound, "model_not_found"),
        (Broken("reset"), Broken, "upstream_failed"),
    ],
)
async def test_what_ended_a_request_early_is_said_in_our_own_words(
    error: BaseException, kind: type[BaseException], code: str
) -> None:
    """A client that left is told apart from a fault of ours, and a fault says nothing of its insides."""
    exchange = under_way(content=False)
    record = await Office().close(exchange, error)
    assert type(exchange.error) is kind
    assert record.error_code == code
    assert record.client_gone is (kind is ClientGone)
    assert "secret" not in str(exchange.error)


async def test_what_was_used_before_the_client_left_is_estimated_and_priced() -> None:
    """The upstream bills it; a budget that did not count it would be passed."""
    record = await Office().close(ended(under_way(), GeneratorExit()), GeneratorExit())
    assert (record.tokens, record.usage_estimated, record.cost_nano) == (Tokens(10, 5), True, 20)


async def test_a_usage_that_was_told_before_the_end_is_priced_too() -> None:
    """The client may leave between the upstream's last word and ours."""
    exchange = under_way()
    exchange.running.usage = Usage(Tokens(1_000, 500), truncated=True)
    record = await Office().close(ended(exchange, GeneratorExit()), GeneratorExit())
    assert (record.tokens, record.usage_estimated, record.cost_nano) == (Tokens(1_000, 500), False, 2_000)
    assert record.truncated


def ended(exchange: Exchange, error: BaseException | None = None) -> Exchange:
    """Its attempt is over."""
    charge_attempt(exchange, error)
    exchange.attempt_ends(error)
    return exchange


async def test_who_was_given_nothing_leaves_nothing() -> None:
    """A request without limits costs the store nothing, also when it was refused before anybody was asked."""
    office = Office()
    await office.close(under_way())
    await office.close(exchange_of(), ModelNotFound("none"))
    assert office.left == []


@pytest.mark.parametrize(("used", "tokens"), [(None, 0), (Usage(Tokens(10, 5)), 15)])
async def test_what_a_request_was_given_it_gives_back(used: Usage | None, tokens: int) -> None:
    """Also when it was refused before any attempt: a key with one seat would be locked out."""
    office, exchange = Office(), exchange_of(OPUS)
    exchange.account.seats = Seats("seats", 1, "me")
    exchange.running.usage = used
    await office.close(exchange, Broken("reset"))
    assert office.left == [(exchange.account, tokens)]


async def test_a_fault_in_paying_takes_no_record_and_a_fault_in_a_record_keeps_no_money() -> None:
    office, exchange = Office(), exchange_of(OPUS)
    exchange.account.denied = ("store", None)
    office.leaving = ValueError("broken")
    assert (await office.close(exchange)).request_id == "req-1"
    assert [(where, type(error)) for where, error in office.errors] == [("pay req-1", ValueError)]
    exchange.request = replace(exchange.request, terms=replace(exchange.request.terms, trace_parent="nonsense"))
    office.settlement.close(exchange, None)
    await office.tasks.drain(1.0)
    assert len(office.left) == 2 and len(office.records) == 1
    assert ("settle req-1", IndexError) in [(where, type(error)) for where, error in office.errors]


async def test_nothing_used_is_nothing_estimated() -> None:
    """A request that was refused has no tokens, rather than those of its prompt."""
    record = await Office().close(under_way(content=False), ModelNotFound("none"))
    assert (record.tokens, record.cost_nano, record.usage_estimated) == (None, None, False)


async def test_a_failed_embedding_has_no_usage_either() -> None:
    record = await Office().close(exchange_of(OPUS, request=embedding()), Broken("reset"))
    assert (record.tokens, record.status) == (None, 502)


async def test_the_first_error_stays_when_nothing_ended_it_early() -> None:
    """A broken stream ends in good order for the code, and is a failure all the same."""
    exchange = under_way()
    exchange.error = Broken("reset")
    record = await Office().close(exchange)
    assert (record.status, record.error_code) == (200, "upstream_failed")


async def test_what_is_learnt_from_an_answer_is_worked_out_after_the_reply() -> None:
    """It may take milliseconds of a long answer, which nobody should wait for."""
    office, exchange = Office(), under_way()
    looked = watch(exchange)
    office.settlement.close(exchange, None)
    assert looked == []
    await office.tasks.drain(1.0)
    assert len(looked) == 1
    noticed = office.records[0].noticed
    assert noticed is not None and not noticed.bare


async def test_an_answer_that_cannot_be_looked_at_is_recorded_all_the_same() -> None:
    """A bug in what is optional must not lose a bill."""
    office, exchange = Office(), under_way()
    watch(exchange, ValueError("strange text"))
    record = await office.close(exchange)
    assert (record.status, record.noticed) == (200, None)
    assert [(where, type(error)) for where, error in office.errors] == [("settle req-1", ValueError)]


def watch(exchange: Exchange, error: Exception | None = None) -> list[Noticing]:
    """Notes when an answer is looked back at; makes it fail."""
    looked: list[Noticing] = []

    class Watched(Noticing):
        def noticed(self) -> Noticed | None:
            looked.append(self)
            if error is not None:
                raise error
            return super().noticed()

    exchange.noticing = Watched(exchange.request)
    exchange.noticing.see(Text("It is 4."))
    return looked
