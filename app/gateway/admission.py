"""Whether a request may go to a candidate: its rates, a seat, and money for the worst this attempt can cost, all in one
call of the store; and paying what it owes once the attempt is over.

A free model needs no money, so it goes on without the store. A paid one never does: who cannot ask what may be spent
spends nothing.
"""

from __future__ import annotations

import functools
import itertools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import orjson

from app.access import limits
from app.core.caller import Caller
from app.core.card import Card
from app.core.clock import Clock
from app.core.errors import BudgetExceeded, BudgetStoreUnavailable, StoreUnavailable, Unbounded
from app.core.money import FREE, Price
from app.core.record import Attempt
from app.core.request import Request
from app.core.spending import CostCell, Counter, Lease, Rate, Seats
from app.gateway.account import Account, Asked, Hold
from app.spend import bounds
from app.spend.bounds import Bound
from app.spend.budgets import Budgets, exceeded
from app.spend.calibration import Calibration
from app.spend.ledger import Ledger
from app.store.ledger import RELEASED, SETTLED, Admitted, Denied, Limited, NoSeat, WrongPeriod
from app.store.ledger import Admission as Answer

TRIES: Final = 4
"""How often one admission is asked again: a period that just turned, a bound lowered to what is left."""
SLICE_TOKENS: Final = 1_024
"""What a stream whose caller named no limit holds at a time, where bounds are guesses anyway."""
PIECE_BYTES: Final = 16
"""More than the bytes of a token in almost any text: an answer beyond that many has more tokens than were asked for."""


class BookCells(Protocol):
    def __call__(
        self, attempt: Attempt, key_id: str | None, tenant: str | None, agent: str | None, *, stands_in: bool = False
    ) -> tuple[CostCell, ...]: ...


@dataclass(frozen=True, slots=True)
class Admission:
    """`guarded` says whether budgets may refuse this request; `denied` hears of refusals: the scope, or what had no
    bound, and the limit. `cells` says as what an attempt is summed up. `calibration` lowers bounds to what prompts
    really are; without it they are strict. `lower`: an answer may become shorter than asked, to fit what is left."""

    ledger: Ledger
    budgets: Budgets
    calibration: Calibration | None
    clock: Clock
    guarded: Callable[[Asked, Caller], bool]
    denied: Callable[[str, Counter | None], None]
    cells: BookCells
    lower: bool = False
    _count: itertools.count[int] = field(default_factory=itertools.count, init=False)
    _process: str = field(default_factory=lambda: secrets.token_hex(8), init=False)

    async def enter(self, account: Account, caller: Caller, request: Asked, card: Card, *, at_last: bool) -> Asked:
        """The request as this model may get it. Raises `RateLimited`, `BudgetExceeded`, `BudgetStoreUnavailable`.
        `at_last`: nothing else is left to try, so a shorter answer is better than none."""
        if account.owed:
            await self.settle(account)  # what an earlier attempt holds may be what this one needs
        rates, seats = _limits(account, caller, request)
        hold = self._hold(caller, request, card, int(self.clock.now() * 1_000))
        account.hold = account.room = None
        if hold is None and not rates and seats is None:
            account.entered = True
            return request
        for _ in range(TRIES):
            match await self._ask(hold, rates, seats, _note(caller, request)):
                case None:  # the store is away, and the model is free
                    account.entered = True
                    return request
                case Admitted(rates=states):
                    if not account.entered:
                        account.entered, account.rates, account.seats, account.states = True, rates, seats, states
                    return self._held(account, request, hold)
                case WrongPeriod(now_ms=now_ms):
                    hold = self._hold(caller, request, card, now_ms)
                case Denied() as denied if hold is not None:
                    hold = self._lowered(hold, denied, request, at_last)
                case Limited() | NoSeat() as refused:
                    raise limits.error_of(refused)
                case _:
                    break
        raise BudgetStoreUnavailable("The store of budgets and this gateway do not agree.", retry_after=1)

    async def extend(self, account: Account) -> bool:
        """Holds as much again for an answer that outgrew its hold, if that may be."""
        hold = account.hold
        if hold is None:
            return True
        bound = hold.bound._replace(completion_tokens=hold.bound.completion_tokens + SLICE_TOKENS)
        more = bounds.hold_nano(bound, hold.price) - bounds.hold_nano(hold.bound, hold.price)
        if not await self.ledger.extend(hold.lease, more):
            return False
        account.hold = hold._replace(bound=bound)
        account.room = (bound.completion_tokens, bound.completion_tokens * PIECE_BYTES)
        return True

    async def settle(self, account: Account) -> None:
        """Pays what is owed. Never raises: what the store does not take waits in the ledger's outbox."""
        while account.owed:
            owed = account.owed.pop(0)
            lease, bound = owed.hold.lease, owed.hold.bound
            await self.ledger.settle(lease, owed.nano, SETTLED if owed.nano else RELEASED, owed.cells)
            if self.calibration is not None and owed.billed is not None:
                self.calibration.learn(lease.model, bound.strict_prompt, bound.prompt_tokens, owed.billed)

    async def leave(self, account: Account, tokens_used: int) -> None:
        """The request is over: pays, and gives back its seat and the tokens it had asked for and did not use."""
        await self.settle(account)
        unused = limits.unused(account.rates, tokens_used)
        if unused or account.seats is not None:
            await self.ledger.hand_back(unused, account.seats)

    # --- what an attempt holds --------------------------------------------------------------------------------------

    def _hold(self, caller: Caller, request: Asked, card: Card, now_ms: int) -> Hold | None:
        """None where nothing is to be held: a free model, or one whose price nobody knows and nobody limits."""
        if (price := card.price) == FREE:
            return None
        counters = self.budgets.counters(caller, request.terms, now_ms)
        if limited := self.budgets.limited(counters):
            if not self.guarded(request, caller):
                counters, limited = tuple(counter._replace(limit_nano=None) for counter in counters), False
        if price is None:
            if limited:
                raise self._refusal("price", f"The price of {card.id} is unknown. Set models.{card.id}.price.")
            return None
        try:
            bound = self._bound(request, card)
        except Unbounded as error:
            if limited:
                raise self._refusal("bound", error.message, error.param) from None
            bound = bounds.bound(request, card, strict=False)
        return self._made(bound, price, counters, caller, request, card)

    def _bound(self, request: Asked, card: Card) -> Bound:
        if self.calibration is None:
            return bounds.bound(request, card)
        bound = bounds.bound(request, card, strict=False)
        slice_ = min(bound.completion_tokens, SLICE_TOKENS) if _unlimited(request) else bound.completion_tokens
        fitted = self.calibration.fit(card.id, bound.prompt_tokens)
        return bound._replace(prompt_tokens=fitted, strict_prompt=bound.prompt_tokens, completion_tokens=slice_)

    def _made(
        self, bound: Bound, price: Price, counters: tuple[Counter, ...], caller: Caller, request: Asked, card: Card
    ) -> Hold:
        lease = Lease(
            self._name(), request.terms.root_id, card.id, bounds.hold_nano(bound, price), counters, self.ledger.epoch
        )
        book = functools.partial(self.cells, key_id=caller.key_id, tenant=caller.tenant, agent=request.terms.agent)
        return Hold(lease, bound, price, book, calibrated=self.calibration is not None)

    def _name(self) -> str:
        return f"{self._process}-{next(self._count)}"

    def _refusal(self, cause: str, words: str, param: str | None = None) -> BudgetExceeded:
        self.denied(cause, None)
        return BudgetExceeded(f"{words} Under a budget only what has a bound is sent.", param=param)

    def _lowered(self, hold: Hold, denied: Denied, request: Asked, at_last: bool) -> Hold:
        """The hold for a shorter answer, which fits what is left. Raises `BudgetExceeded`."""
        counter = denied.counter
        left = (counter.limit_nano or 0) - denied.used_nano - denied.held_nano
        may = at_last and isinstance(request, Request) and (self.lower or request.max_tokens is None)
        bound = bounds.affordable(hold.bound, hold.price, left) if may else None
        if bound is None:
            if at_last:
                self.denied(counter.scope, counter)
            raise exceeded(counter, denied.used_nano, denied.held_nano)
        lease = replace(hold.lease, id=self._name(), held_nano=bounds.hold_nano(bound, hold.price))
        return hold._replace(lease=lease, bound=bound)

    async def _ask(self, hold: Hold | None, rates: Sequence[Rate], seats: Seats | None, note: bytes) -> Answer | None:
        """What the store says; None where it is away and the model is free."""
        if hold is not None:
            return await self.ledger.admit(hold.lease, rates, seats, note)
        try:
            return await self.ledger.admit(None, rates, seats)
        except StoreUnavailable:
            return None

    def _held(self, account: Account, request: Asked, hold: Hold | None) -> Asked:
        """The request as it may be sent, now that this is held for it: with the limit that was reckoned with."""
        account.hold = hold
        if hold is None or not isinstance(request, Request) or not self.budgets.limited(hold.lease.counters):
            return request
        room = hold.bound.completion_tokens
        account.room = (room, room * PIECE_BYTES)
        return (
            request
            if request.max_tokens == hold.bound.max_tokens
            else replace(request, max_tokens=hold.bound.max_tokens)
        )


def _limits(account: Account, caller: Caller, request: Asked) -> tuple[tuple[Rate, ...], Seats | None]:
    """What the caller's own limits ask for, once per request."""
    unlimited = caller.requests_per_minute is None and caller.tokens_per_minute is None and caller.concurrency is None
    if account.entered or unlimited:
        return (), None
    guessed = isinstance(request, Request) and request.max_tokens is None
    rates = limits.rates_of(caller, *bounds.expected(request), guessed=guessed)
    return rates, limits.seats_of(caller, request.id)


def _unlimited(request: Asked) -> bool:
    return isinstance(request, Request) and request.stream and request.max_tokens is None


def _note(caller: Caller, request: Asked) -> bytes:
    """What an operator is told of a hold, and what its charge is summed up as should nobody settle it."""
    terms = request.terms
    return orjson.dumps(
        {"key": caller.key_id, "tenant": caller.tenant, "agent": terms.agent, "request": terms.request_id}
    )
