"""Before a paid model is asked the worst it can cost is held; whoever may not have it is told why, once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.card import Ability, Card
from app.core.errors import BudgetExceeded, BudgetStoreUnavailable, RateLimited, Unbounded
from app.core.money import FREE, Tokens
from app.core.record import Attempt
from app.core.request import AnyRequest, Request
from app.core.spending import Counter, RateState
from app.gateway.account import Account
from app.gateway.admission import SLICE_TOKENS, TRIES, Admission
from app.spend.calibration import Calibration
from app.store.ledger import RECORDED, RELEASED, SETTLED, Denied, Replayed, WrongPeriod
from tests.core.nouns import card, chat, embedding, paid, terms
from tests.gateway.bank import A_NANO_A_TOKEN, Till

OPUS = paid("claude/opus", price=A_NANO_A_TOKEN, max_output=8_000)
QWEN = card("gpu/qwen", price=FREE)
UNPRICED = paid("other/model")
LIMITED = Caller(key_id="k", requests_per_minute=2, tokens_per_minute=10_000, concurrency=1)
DAY_MS = 86_400_000


async def enter(
    till: Till,
    account: Account,
    request: AnyRequest | None = None,
    model: Card = OPUS,
    caller: Caller = ANONYMOUS,
    *,
    at_last: bool = True,
    by: Admission | None = None,
) -> AnyRequest:
    admission = by or till.admission
    return await admission.enter(account, caller, request or chat(max_tokens=100), model, at_last=at_last)


def ends(account: Account, nano: int = 60, told: bool = True) -> None:
    """The attempt is over, and cost that."""
    attempt = Attempt("claude/opus", "claude", "ok", None, 1.0, nano, Tokens(10, nano), leased=True)
    account.ends(attempt, stands_in=False, told=told)


# --- money ------------------------------------------------------------------------------------------------------------


async def test_the_worst_is_held_and_what_it_was_is_charged() -> None:
    till, account = Till(1_000), Account()
    request = chat(max_tokens=100)
    assert await enter(till, account, request) is request, "nothing of it is changed"
    assert (till.bank.holds, account.room) == ([100], (100, 1_600))
    ends(account)
    assert not account.hold and account.room is None
    await till.admission.leave(account, 70)
    assert till.bank.is_at_rest and (till.bank.charges, till.bank.finals) == ([60], [SETTLED])
    assert not account.owed and till.refusals == []


async def test_what_a_charge_is_summed_up_as_says_whose_it_was() -> None:
    till, account = Till(1_000), Account()
    caller, request = Caller(key_id="k", tenant="acme"), chat(max_tokens=100, terms=terms(agent="qe"))
    await enter(till, account, request, caller=caller)
    ends(account, 60)
    await till.admission.leave(account, 0)
    assert [(cell.field, cell.amount) for cell in till.bank.cells] == [("claude/opus|k|acme|qe|", 60)]


async def test_an_attempt_that_cost_nothing_is_released() -> None:
    till, account = Till(1_000), Account()
    await enter(till, account)
    ends(account, 0)
    await till.admission.leave(account, 0)
    assert till.bank.finals == [RELEASED] and till.bank.is_at_rest


async def test_a_free_model_asks_nobody() -> None:
    """Local answers must cost the store nothing, and go on without it."""
    till, account = Till(0), Account()
    till.bank.away = True
    request = chat()
    assert await enter(till, account, request, QWEN) is request
    assert till.bank.calls == 0 and not account.is_open and account.entered


async def test_without_a_limit_spend_is_counted_and_nothing_changed() -> None:
    """A limit that is set later knows what was spent before. The request is as the caller sent it."""
    till, account = Till(), Account()
    request = chat()
    assert await enter(till, account, request) is request
    assert account.room is None and till.bank.holds == [8_000]


async def test_what_nobody_named_a_length_of_is_sent_with_the_one_that_is_held() -> None:
    """Else the upstream could answer for longer than there is money for."""
    till, account = Till(100_000), Account()
    sent = await enter(till, account, chat())
    assert isinstance(sent, Request) and sent.max_tokens == 8_000 and till.bank.holds == [8_000]


async def test_embeddings_hold_their_inputs() -> None:
    till, account = Till(100_000), Account()
    model = paid("claude/embedder", price=A_NANO_A_TOKEN.__class__(1_000, 0, 0, 0, 0))
    request = embedding(inputs=("text",))
    assert await enter(till, account, request, model) is request
    assert till.bank.holds == [4 + 8] and account.room is None


async def test_the_next_attempt_begins_with_what_the_last_one_owed() -> None:
    """A limit that has room for one of both must not be in its own way."""
    till, account = Till(100), Account()
    await enter(till, account)
    ends(account, 0)
    await enter(till, account)
    assert till.bank.holds == [100, 100] and len(till.bank.leases) == 1
    ends(account, 100)
    await till.admission.leave(account, 0)
    assert till.bank.charges == [0, 100] and till.bank.is_at_rest


# --- what does not fit ------------------------------------------------------------------------------------------------


async def test_what_does_not_fit_is_refused_in_words_and_counted_once() -> None:
    till, account = Till(99), Account()
    for at_last in (False, True):
        with pytest.raises(BudgetExceeded, match=r"global budget global:\*:day of 0.000000099 USD has no room"):
            await enter(till, account, at_last=at_last)
    assert till.refusals == [] and not account.entered
    await till.admission.leave(account, 0)
    assert till.refusals == [("global", 99)]
    assert till.bank.holds == [] and till.bank.is_at_rest


async def test_who_was_answered_by_another_model_was_not_refused() -> None:
    till, account = Till(99), Account()
    with pytest.raises(BudgetExceeded):
        await enter(till, account, at_last=False)
    await enter(till, account, model=QWEN)
    await till.admission.leave(account, 0)
    assert till.refusals == []


@pytest.mark.parametrize(
    ("named", "lower", "at_last", "held"),
    [
        (None, False, True, 3_000),
        (None, False, False, None),
        (5_000, False, True, None),
        (5_000, True, True, 3_000),
        (5_000, True, False, None),
    ],
)
async def test_an_answer_is_made_shorter_only_at_last_and_where_it_may(
    named: int | None, lower: bool, at_last: bool, held: int | None
) -> None:
    """What the caller said is what it gets, or a refusal, unless the operator says otherwise."""
    till, account = Till(3_000, lower=lower), Account()
    request = chat(max_tokens=named)
    if held is None:
        with pytest.raises(BudgetExceeded):
            await enter(till, account, request, at_last=at_last)
        assert till.bank.holds == []
        return
    sent = await enter(till, account, request, at_last=at_last)
    assert isinstance(sent, Request) and sent.max_tokens == held
    assert till.bank.holds == [held] and account.room == (held, held * 16)


async def test_an_answer_that_is_not_worth_it_is_not_asked_for() -> None:
    till, account = Till(5), Account()
    with pytest.raises(BudgetExceeded):
        await enter(till, account, chat())
    assert till.bank.calls == 1


async def test_an_embedding_is_never_made_shorter() -> None:
    till, account = Till(5, lower=True), Account()
    model = paid("claude/embedder", price=A_NANO_A_TOKEN.__class__(1_000, 0, 0, 0, 0))
    with pytest.raises(BudgetExceeded):
        await enter(till, account, embedding(inputs=("a long text",)), model)


async def test_who_is_always_too_late_is_told_of_the_limit() -> None:
    """Others take what was left just before; that is no fault of the store."""
    till, account = Till(10**9), Account()
    counter = till.budgets.counters(ANONYMOUS, terms(), 0)[0]
    till.bank.says.extend(Denied(counter, 10**9 - 5_000 + 10 * place, 0) for place in range(TRIES))
    with pytest.raises(BudgetExceeded, match=r"0\.99999503 USD are used"):
        await enter(till, account, chat())
    assert not till.bank.says and account.denied == ("global", counter)


async def test_an_unknown_price_is_refused_by_name_where_something_is_limited() -> None:
    till, account = Till(1_000), Account()
    with pytest.raises(BudgetExceeded, match=r"models\.other/model\.price"):
        await enter(till, account, model=UNPRICED)
    await till.admission.leave(account, 0)
    assert till.refusals == [("price", None)] and till.bank.calls == 0
    free = Till()
    await enter(free, Account(), model=UNPRICED)
    assert free.bank.calls == 0


async def test_what_has_no_bound_is_refused_where_something_is_limited() -> None:
    request = chat("auto", Ability.AUDIO_OUTPUT, max_tokens=100)
    till, account = Till(1_000), Account()
    with pytest.raises(Unbounded, match="sound") as caught:
        await enter(till, account, request)
    assert caught.value.param == "modalities"
    await till.admission.leave(account, 0)
    assert till.refusals == [("bound", None)]
    free = Till()
    await enter(free, Account(), request)
    assert free.bank.holds == [100], "without a limit it is guessed"


# --- the store's own time and books -----------------------------------------------------------------------------------


async def test_a_period_that_has_just_turned_is_asked_anew() -> None:
    till, account = Till(1_000), Account()
    till.bank.says.append(WrongPeriod(DAY_MS * 3))
    await enter(till, account)
    assert account.hold is not None
    assert [counter.starts_ms for counter in account.hold.lease.counters] == [DAY_MS * 3]


@pytest.mark.parametrize("said", [[Replayed("settled")], [WrongPeriod(0)] * TRIES])
async def test_a_store_that_makes_no_sense_lends_nothing(said: list[Any]) -> None:
    till, account = Till(1_000), Account()
    till.bank.says.extend(said)
    with pytest.raises(BudgetStoreUnavailable, match="do not agree"):
        await enter(till, account)
    await till.admission.leave(account, 0)
    assert till.refusals == [("store", None)] and till.bank.is_at_rest


@pytest.mark.parametrize("limit", [None, 1_000])
async def test_without_the_store_nothing_paid_is_asked(limit: int | None) -> None:
    till, account = Till(limit), Account()
    till.bank.away = True
    with pytest.raises(BudgetStoreUnavailable):
        await enter(till, account)
    await till.admission.leave(account, 0)
    assert till.refusals == [("store", None)]


async def test_an_emptied_store_lends_nothing() -> None:
    till = Till(1_000)
    till.bank.book = ""
    with pytest.raises(BudgetStoreUnavailable, match="rebuild"):
        await enter(till, Account())


async def test_without_the_store_limits_on_free_requests_rest() -> None:
    till, account = Till(1_000), Account()
    till.bank.away = True
    await enter(till, account, model=QWEN, caller=LIMITED)
    assert account.entered and not account.is_open
    till.bank.away = False
    await enter(till, account, model=QWEN, caller=LIMITED)
    assert till.bank.calls == 1, "it was let in, and stays in"


async def test_what_the_store_did_not_take_is_settled_later() -> None:
    till, account = Till(1_000), Account()
    await enter(till, account)
    ends(account)
    till.bank.away = True
    await till.admission.leave(account, 0)
    assert not account.owed and len(till.outbox.entries) == 1
    await till.healed()
    assert till.bank.is_at_rest and till.bank.charges == [60]


async def test_a_hold_that_was_made_unheard_is_taken_back() -> None:
    """The store did it, and its answer was lost."""
    till, account = Till(1_000), Account()
    till.bank.away = till.bank.half = True
    with pytest.raises(BudgetStoreUnavailable):
        await enter(till, account, caller=LIMITED)
    assert till.bank.leases and till.bank.seats
    await till.healed()
    assert till.bank.is_at_rest and till.bank.charges == [0]


# --- without the guard ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [OPUS, UNPRICED])
async def test_without_the_guard_nothing_is_refused_and_spend_is_counted(model: Card) -> None:
    till, account = Till(10), Account()
    till.guard = False
    request = chat(max_tokens=100)
    assert await enter(till, account, request, model) is request
    assert till.bank.holds == ([100] if model is OPUS else []) and account.room is None


async def test_without_the_guard_what_has_no_bound_is_guessed() -> None:
    till = Till(10)
    till.guard = False
    await enter(till, Account(), chat("auto", Ability.AUDIO_OUTPUT, max_tokens=100))
    assert till.bank.holds == [100]


@pytest.mark.parametrize("half", [False, True])
async def test_without_the_guard_a_store_that_is_away_stops_nobody_and_learns_of_it_later(half: bool) -> None:
    """Also where the store had just done what it could not confirm: that is taken back, and the charge booked once."""
    till, account = Till(10), Account()
    till.guard = False
    till.bank.away, till.bank.half = True, half
    await enter(till, account)
    assert account.hold is not None and not account.hold.lent
    ends(account, 60)
    till.bank.half = False
    await till.admission.leave(account, 0)
    assert till.refusals == []
    await till.healed()
    assert till.bank.is_at_rest and sum(till.bank.spent.values()) == 60
    assert RECORDED in till.bank.finals and list(till.bank.used.values()) == [60]


async def test_without_the_guard_a_store_that_was_late_leaves_a_request_its_seat() -> None:
    """What is taken back of a call that nobody heard the end of must not be the seat of the one that runs."""
    till, account = Till(10), Account()
    till.guard = False
    two = replace(LIMITED, concurrency=2)
    till.bank.away = till.bank.half = True
    entering = asyncio.ensure_future(enter(till, account, caller=two))
    async with asyncio.timeout(10):
        while till.bank.calls < 2:
            await asyncio.sleep(0)
        till.bank.away = till.bank.half = False  # in time for the second call
        await entering
    assert account.seats is not None and len(till.bank.seats) == 2
    await till.ledger.tend()
    assert till.bank.seats == {account.seats.holder}
    ends(account)
    await till.admission.leave(account, 0)
    await till.healed()
    assert till.bank.is_at_rest


async def test_without_the_guard_an_emptied_store_still_limits_how_often_a_key_asks() -> None:
    till = Till(10)
    till.guard, till.bank.book = False, ""
    for _ in range(2):
        account = Account()
        await enter(till, account, caller=LIMITED)
        await till.admission.leave(account, 0)
    with pytest.raises(RateLimited):
        await enter(till, Account(), caller=LIMITED)


# --- how often a key may ask ------------------------------------------------------------------------------------------


async def test_a_request_takes_its_seat_and_its_rates_once() -> None:
    till, account = Till(1_000), Account()
    await enter(till, account, caller=LIMITED)
    states, taken = account.states, dict(till.bank.taken)
    assert [state.kind for state in states] == ["requests", "tokens"] and sorted(taken.values()) == [1, 100]
    ends(account, 0)
    await enter(till, account, caller=LIMITED)
    assert (account.states, till.bank.taken, len(till.bank.seats)) == (states, taken, 1)
    ends(account, 60)
    await till.admission.leave(account, 70)
    assert till.bank.is_at_rest and sorted(till.bank.taken.values()) == [1, 70]


async def test_a_denied_hold_takes_neither_seat_nor_rate() -> None:
    till, account = Till(10), Account()
    with pytest.raises(BudgetExceeded):
        await enter(till, account, caller=LIMITED)
    await till.admission.leave(account, 0)
    assert till.bank.taken == {} and not till.bank.seats


async def test_who_asks_too_often_is_told_how_its_limits_stand() -> None:
    till = Till(1_000)
    for _ in range(2):
        account = Account()
        await enter(till, account, model=QWEN, caller=LIMITED)
        await till.admission.leave(account, 0)
    account = Account()
    with pytest.raises(RateLimited) as caught:
        await enter(till, account, model=QWEN, caller=LIMITED)
    assert caught.value.rates[0] == RateState("requests", 2, 0, 1.0)
    await till.admission.leave(account, 0)
    assert till.refusals == [], "that is no want of money"


async def test_a_seat_is_free_again_when_its_request_is_over() -> None:
    till, first = Till(), Account()
    await enter(till, first, model=QWEN, caller=LIMITED)
    with pytest.raises(RateLimited, match="1 request running"):
        await enter(till, Account(), model=QWEN, caller=LIMITED)
    await till.admission.leave(first, 0)
    await enter(till, Account(), model=QWEN, caller=LIMITED)


async def test_what_the_gateway_starts_by_itself_takes_no_seat_of_its_caller() -> None:
    """A shadow that nobody asked for must not turn the caller's own next request away."""
    till, account = Till(1_000), Account()
    await enter(till, account, chat(max_tokens=100, terms=terms(depth=1)), caller=LIMITED)
    assert till.bank.holds == [100] and not till.bank.seats and till.bank.taken == {}


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_an_answer_that_outgrows_its_hold_gets_more_until_there_is_none() -> None:
    till, account = Till(100 + SLICE_TOKENS), Account()
    await enter(till, account)
    assert account.outgrown(101, 0) and account.outgrown(1, 1_601) and not account.outgrown(100, 1_600)
    assert await till.admission.extend(account)
    assert till.bank.holds == [100 + SLICE_TOKENS] and not account.outgrown(100 + SLICE_TOKENS, 0)
    assert not await till.admission.extend(account)
    ends(account, 500)
    await till.admission.leave(account, 0)
    assert till.bank.is_at_rest and till.bank.charges == [500]


async def test_an_answer_under_way_waits_a_moment_for_a_store_that_is_late() -> None:
    """It has money; to end it in the middle of a sentence because of a hiccup would be a poor joke."""
    till, account = Till(10_000), Account()
    await enter(till, account)
    till.bank.away = True
    asking = asyncio.ensure_future(till.admission.extend(account))
    for _ in range(5):
        await asyncio.sleep(0)
    till.bank.away = False
    assert await asking and till.bank.holds == [100 + SLICE_TOKENS]
    till.bank.away = True
    assert not await till.admission.extend(account), "but not for ever"


async def test_who_holds_nothing_may_go_on() -> None:
    assert await Till().admission.extend(Account())


async def test_a_stream_of_no_stated_length_holds_a_slice_at_a_time_where_bounds_are_guesses() -> None:
    """Else eight thousand tokens are held for an answer of fifty."""
    till = Till(100_000)
    calibrated = till.admitting(Calibration(lambda over: None))
    account = Account()
    sent = await enter(till, account, chat(stream=True), by=calibrated)
    assert isinstance(sent, Request) and sent.max_tokens == 8_000
    assert till.bank.holds == [SLICE_TOKENS] and account.room == (SLICE_TOKENS, SLICE_TOKENS * 16)
    await enter(till, Account(), chat(stream=True, max_tokens=2_000), by=calibrated)
    await enter(till, Account(), chat(), by=calibrated)
    assert till.bank.holds[1:] == [2_000, 8_000]


async def test_what_prompts_really_are_is_learnt_from_what_was_told_alone() -> None:
    over: list[bool] = []
    till, calibration = Till(), Calibration(over.append)
    calibrated = till.admitting(calibration)
    model = paid("claude/opus", price=A_NANO_A_TOKEN.__class__(1_000, 0, 0, 0, 0))
    request = embedding(inputs=("x" * 992,))
    for told in (True,) * 1_100 + (False,) * 10:
        account = Account()
        await enter(till, account, request, model, by=calibrated)
        account.ends(Attempt(model.id, "claude", "ok", None, 1.0, 1, Tokens(100)), stands_in=False, told=told)
        await calibrated.leave(account, 0)
    assert till.bank.holds[0] == 1_000 and 100 <= till.bank.holds[-1] < 200
    assert over and not any(over)


# --- when something goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("caller", [ANONYMOUS, LIMITED])
async def test_who_leaves_while_he_is_let_in_holds_nothing(turns: int, caller: Caller) -> None:
    till, account = Till(1_000), Account()
    await enter(till, account, caller=caller)
    ends(account)
    task = asyncio.ensure_future(enter(till, account, caller=caller))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if account.hold is not None:
        ends(account, 0)
    await till.admission.leave(account, 0)
    await till.healed()
    assert till.bank.is_at_rest and sum(till.bank.charges) == 60
    assert not till.ledger.open_leases


async def test_a_hold_whose_attempt_was_lost_is_charged() -> None:
    """By a fault of ours; nobody knows any more what was sent, and it must not stay held for ever."""
    till, account = Till(1_000), Account()
    await enter(till, account)
    await till.admission.leave(account, 0)
    assert till.bank.is_at_rest and till.bank.charges == [100]


async def test_who_is_told_of_a_refusal_and_fails_keeps_no_money_and_no_seat() -> None:
    till, account = Till(100), Account()
    await enter(till, account, caller=LIMITED)
    ends(account, 60)
    with pytest.raises(BudgetExceeded):
        await enter(till, account, caller=LIMITED)

    def fails(scope: str, counter: Counter | None) -> None:
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError):
        await replace(till.admission, denied=fails).leave(account, 60)
    assert till.bank.is_at_rest and till.bank.charges == [60]
