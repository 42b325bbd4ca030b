"""Whether a request may go to a candidate: its rates, a seat, and money for the worst this attempt can cost, all in one
call of the store; and paying what it owes once the attempt is over.

A free model needs no money, so it goes on without the store. A paid one never does: who cannot ask what may be spent
spends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import orjson

from app.access import limits
from app.core.caller import Caller
from app.core.card import Card
from app.core.clock import Clock
from app.core.errors import BudgetExceeded, BudgetStoreUnavailable, StoreUnavailable, Unbounded
from app.core.money import FREE
from app.core.record import Attempt
from app.core.request import AnyRequest, Request
from app.core.spending import CostCell, Counter, Lease, Rate, Seats
from app.gateway.account import Account, Hold
from app.spend import bounds
from app.spend.bounds import Bound
from app.spend.budgets import Budgets, exceeded
from app.spend.calibration import Calibration
from app.spend.ledger import Ledger
from app.store.ledger import RECORDED, RELEASED, SETTLED, AdmissionReply, Admitted, Denied, Limited, NoSeat, WrongPeriod

TRIES: Final = 4
"""How often one admission is asked again: a period that just turned, a bound lowered to what is left."""
SLICE_TOKENS: Final = 1_024
"""What a stream whose caller named no limit holds at a time, where bounds are guesses anyway."""
LEAVE_SECONDS: Final = 1.0
"""How long a request that found no room waits for those that are just leaving."""
PIECE_BYTES: Final = 16
"""More than the bytes of a token in almost any text: an answer beyond that many has more tokens than were asked for."""
PRICE, BOUND, STORE = "price", "bound", "store"
"""What refuses a request, where that is no limit: an unknown price, no bound, a store that cannot be asked."""
UNPRICED: Final = "The price of {0} is unknown, and so under a budget it is not asked. Set models.{0}.price."


class BookCells(Protocol):
    def __call__(
        self, attempt: Attempt, key_id: str | None, tenant: str | None, agent: str | None, *, stands_in: bool = False
    ) -> tuple[CostCell, ...]: ...


@dataclass(frozen=True, slots=True)
class Admission:
    """`guarded` says whether budgets may refuse this request; `denied` hears of each that was refused: the scope, or
    what was missing, and the limit. `cells` says as what an attempt is summed up. `calibration` lowers bounds to what
    prompts really are; without it they are strict. `lower`: an answer may become shorter than asked, to fit what is
    left."""

    ledger: Ledger
    budgets: Budgets
    calibration: Calibration | None
    clock: Clock
    guarded: Callable[[AnyRequest, Caller], bool]
    denied: Callable[[str, Counter | None], None]
    cells: BookCells
    lower: bool = False
    _leaving: set[asyncio.Future[None]] = field(default_factory=set, init=False)
    _count: itertools.count[int] = field(default_factory=itertools.count, init=False)
    _process: str = field(default_factory=lambda: secrets.token_hex(8), init=False)

    async def enter(
        self, account: Account, caller: Caller, request: AnyRequest, card: Card, *, at_last: bool
    ) -> AnyRequest:
        """The request as this model may get it; what an earlier attempt owes is paid first. Raises `RateLimited` (also
        as `TooLargeForRate`), `BudgetExceeded`, `Unbounded`, `BudgetStoreUnavailable`. `at_last`: nothing else is left
        to try, so a shorter answer is better than none."""
        if account.owed:  # what an earlier attempt holds may be what this one needs
            await self.settle(account)
        try:
            sent = await self._enter(account, caller, request, card, at_last)
        except BudgetStoreUnavailable:
            account.denied = STORE, None
            raise
        account.entered, account.denied = True, None
        return sent

    async def _enter(
        self, account: Account, caller: Caller, request: AnyRequest, card: Card, at_last: bool
    ) -> AnyRequest:
        rates, seats = _limits(account, caller, request)
        hold = self._hold(account, caller, request, card, int(self.clock.now() * 1_000))
        if hold is None and not rates and seats is None:
            return request
        denied: Denied | None = None
        waited = False
        for _ in range(TRIES):
            answer, hold, seats = await self._ask(hold, rates, seats, caller, request)
            match answer:
                case Denied() | Limited() | NoSeat() if not waited and self._leaving:
                    waited = True
                    await self._after_who_leaves()
                    continue
                case None:  # the store is away, and this needs none
                    return self._held(account, request, hold)
                case Admitted(rates=states):
                    if rates or seats is not None:
                        account.rates, account.seats, account.states = rates, seats, states
                    return self._held(account, request, hold)
                case WrongPeriod(now_ms=now_ms):
                    hold = self._hold(account, caller, request, card, now_ms)
                case Denied() if hold is not None:
                    denied, lower = answer, self._lowered(hold, answer, request, at_last)
                    if lower is None:
                        break
                    hold = lower
                case Limited() | NoSeat():
                    raise limits.error_of(answer)
                case _:
                    break
        if denied is None:
            raise BudgetStoreUnavailable("The store of budgets and this gateway do not agree.", retry_after=1)
        account.denied = denied.counter.scope, denied.counter
        raise exceeded(*denied, 0 if hold is None else hold.lease.held_nano)

    async def extend(self, account: Account) -> bool:
        """Holds another slice for an answer that outgrew its hold, if that may be."""
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

    async def _after_who_leaves(self) -> None:
        """Waits for those whose answers are over and who are just paying: a caller that makes one request after the
        other must not be kept out by the one before."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await asyncio.gather(*self._leaving)

    async def settle(self, account: Account) -> None:
        """Pays what is owed. Never raises: what the store does not take waits in the ledger's outbox. Who is cancelled
        meanwhile may begin anew, because a lease is settled once however often it is asked for."""
        while account.owed:
            owed = account.owed[0]
            lease, bound = owed.hold.lease, owed.hold.bound
            final = RECORDED if not owed.hold.lent else SETTLED if owed.nano else RELEASED
            await self.ledger.settle(lease, owed.nano, final, owed.cells)
            del account.owed[0]
            if self.calibration is not None and owed.billed is not None:
                self.calibration.learn(lease.model, bound.strict_prompt, bound.prompt_tokens, owed.billed)

    def leave(self, account: Account, tokens_used: int) -> Coroutine[Any, Any, None]:
        """The request is over: pays, gives back its seat and the tokens it had asked for and did not use; then tells of
        its refusal. From now on others know that it is about to."""
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leaving.add(left)
        return self._leave(account, tokens_used, left)

    async def _leave(self, account: Account, tokens_used: int, left: asyncio.Future[None]) -> None:
        try:
            if account.owed:
                await self.settle(account)
            if (hold := account.hold) is not None and hold.lent:  # a fault of ours lost the end of the attempt
                await self.ledger.settle(hold.lease, hold.lease.held_nano, SETTLED)
            unused = limits.unused(account.rates, tokens_used) if account.rates else []
            if unused or account.seats is not None:
                await self.ledger.hand_back(unused, account.seats)
        finally:
            self._leaving.discard(left)
            if not left.done():
                left.set_result(None)
        if account.denied is not None:
            self.denied(*account.denied)

    # --- what an attempt holds --------------------------------------------------------------------------------------

    def _hold(self, account: Account, caller: Caller, request: AnyRequest, card: Card, now_ms: int) -> Hold | None:
        """None where nothing is to be held: a free model, or one whose price nobody knows and nobody limits."""
        if (price := card.price) == FREE:
            return None
        counters = self.budgets.counters(caller, request.terms, now_ms)
        limited = self.budgets.limited(counters)
        guarded = not limited or self.guarded(request, caller)
        if not guarded:
            counters, limited = tuple(counter._replace(limit_nano=None) for counter in counters), False
        if price is None:
            if not limited:
                return None
            account.denied = PRICE, None
            raise BudgetExceeded(UNPRICED.format(card.id))
        try:
            bound = self._bound(request, card)
        except Unbounded:
            if limited:
                account.denied = BOUND, None
                raise
            bound = bounds.bound(request, card, strict=False)
        book = functools.partial(self.cells, key_id=caller.key_id, tenant=caller.tenant, agent=request.terms.agent)
        nano = bounds.hold_nano(bound, price)
        lease = Lease(self._name(), request.terms.root_id, card.id, nano, counters, self.ledger.epoch)
        calibrated = self.calibration is not None
        return Hold(lease, bound, price, book, calibrated=calibrated, guarded=guarded, limited=limited)

    def _bound(self, request: AnyRequest, card: Card) -> Bound:
        if self.calibration is None:
            return bounds.bound(request, card)
        bound = bounds.bound(request, card, strict=False)
        slice_ = min(bound.completion_tokens, SLICE_TOKENS) if _unlimited(request) else bound.completion_tokens
        fitted = self.calibration.fit(card.id, bound.prompt_tokens)
        return bound._replace(prompt_tokens=fitted, strict_prompt=bound.prompt_tokens, completion_tokens=slice_)

    def _name(self) -> str:
        return f"{self._process}-{next(self._count)}"

    def _lowered(self, hold: Hold, denied: Denied, request: AnyRequest, at_last: bool) -> Hold | None:
        """The hold for a shorter answer, which fits what is left; None where there is none."""
        if not (at_last and isinstance(request, Request) and (self.lower or request.max_tokens is None)):
            return None
        left = (denied.counter.limit_nano or 0) - denied.used_nano - denied.held_nano
        bound = bounds.affordable(hold.bound, hold.price, left)
        if bound is None:
            return None
        lease = replace(hold.lease, id=self._name(), held_nano=bounds.hold_nano(bound, hold.price))
        return hold._replace(lease=lease, bound=bound, lowered=True)

    async def _ask(
        self, hold: Hold | None, rates: Sequence[Rate], seats: Seats | None, caller: Caller, request: AnyRequest
    ) -> tuple[AdmissionReply | None, Hold | None, Seats | None]:
        """What the store says, None where it is away and this needs none; what is held then, and the seat."""
        if hold is not None and hold.lent:
            try:
                return await self.ledger.admit(hold.lease, rates, seats, _note(caller, request)), hold, seats
            except BudgetStoreUnavailable:
                if hold.guarded:
                    raise
                # Under other names: what may have been admitted unheard, the seat too, is taken back under these.
                hold = hold._replace(lease=replace(hold.lease, id=self._name()), lent=False)
                seats = limits.seats_of(caller, request.id) if seats is not None else None
        try:
            return await self.ledger.admit(None, rates, seats), hold, seats
        except StoreUnavailable:
            return None, hold, None

    def _held(self, account: Account, request: AnyRequest, hold: Hold | None) -> AnyRequest:
        """The request as it may be sent, now that this is held for it: with the limit that was reckoned with."""
        account.hold = hold
        if hold is None or not hold.limited or not isinstance(request, Request):
            return request
        account.lowered = request.max_tokens is None and hold.lowered
        room = hold.bound.completion_tokens
        account.room = (room, room * PIECE_BYTES)
        most = hold.bound.max_tokens
        return request if request.max_tokens == most else request.held_to(most)


def _limits(account: Account, caller: Caller, request: AnyRequest) -> tuple[tuple[Rate, ...], Seats | None]:
    """What the caller's own limits ask for, once per request; of what the gateway starts by itself nothing."""
    unlimited = caller.requests_per_minute is None and caller.tokens_per_minute is None and caller.concurrency is None
    if account.entered or unlimited or request.terms.depth:
        return (), None
    guessed = isinstance(request, Request) and request.max_tokens is None
    rates = limits.rates_of(caller, *bounds.expected(request), guessed=guessed)
    return rates, limits.seats_of(caller, request.id)


def _unlimited(request: AnyRequest) -> bool:
    return isinstance(request, Request) and request.stream and request.max_tokens is None


def _note(caller: Caller, request: AnyRequest) -> bytes:
    """What an operator is told of a hold, and what its charge is summed up as should nobody settle it."""
    terms = request.terms
    return orjson.dumps(
        {"key": caller.key_id, "tenant": caller.tenant, "agent": terms.agent, "request": terms.request_id}
    )
