"""The one retry loop: walks the plan, owns tries and time, and knows whose fault a failure was.

An attempt is committed by its first content. Before that, a failure moves on as its error's `again` says; after it,
the answer ends with a Fault, and no other model is spliced in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

from app.core.errors import Again, BadReply, GatewayError, Incomplete
from app.core.plan import Candidate, Plan
from app.gateway.account import Account
from app.gateway.charging import charge_attempt
from app.gateway.conclusion import Failures
from app.gateway.exchange import Exchange
from app.gateway.retries import RetryBudget
from app.gateway.seating import Seating
from app.gateway.turns import Enter, Turns
from app.spend.machines import Machines
from app.upstreams.health import Health

T = TypeVar("T")
Open = Callable[[Candidate], AsyncGenerator[T, None]]
Sleep = Callable[[float], Awaitable[None]]
Emergency = Callable[[Plan, Failures], str | None]
Pay = Callable[[Account], Awaitable[None]]

MAX_ATTEMPTS: Final = 3
STANDING: Final = Seating()
HELD_MAX: Final = 64
HELD_BYTES_MAX: Final = 262_144


def _no_emergency(plan: Plan, failures: Failures) -> str | None:
    return None


async def _owing_nothing(account: Account) -> None:
    """Nobody holds anything."""


class Attempts:
    """Shared by all requests: health of the upstreams and the budget for retries. `emergency` says what allows a plan's
    reserve to be tried, after these failures; `seating` where there is a seat; `pay` settles what an attempt held.
    One request may take several walks (it is made shorter, its answer gone on with); all its attempts together are no
    more than the most."""

    def __init__(
        self,
        health: Health,
        max_attempts: int = MAX_ATTEMPTS,
        sleep: Sleep = asyncio.sleep,
        emergency: Emergency = _no_emergency,
        seating: Seating = STANDING,
        pay: Pay = _owing_nothing,
    ) -> None:
        self._pay = pay
        self._seating = seating
        self._emergency = emergency
        self._health = health
        self._machines = Machines(health.clock)
        self._max_attempts = max_attempts
        self._sleep = sleep
        self._budget = RetryBudget()

    async def walk(
        self,
        exchange: Exchange,
        enter: Enter,
        open_: Open[T],
        commits: Callable[[T], bool],
        after: Callable[[GatewayError], T],
    ) -> AsyncGenerator[T, None]:
        """What the first candidate that commits gives. `enter` raises what keeps a request from a candidate (limits,
        money), which is no attempt; `commits` says which item commits; `after` makes the last item of an answer that
        broke after that. Raises the error for the client when none commits."""
        most = self._max_attempts - len(exchange.attempts)
        if most <= 0 and exchange.failure is not None:
            raise exchange.failure
        if not exchange.attempts:
            self._budget.request()
        if exchange.account.owed:  # of a walk before: nobody holds money while he waits
            await self._pay(exchange.account)
        turns = Turns(exchange.candidates, most, self._well, self._budget.take)
        while True:
            candidate = await turns.next(self._seating.before(enter, exchange))
            committed, held = False, list[T]()
            exchange.attempt_begins(candidate, self._machines.started(candidate.card.upstream))
            self._health.started(candidate.card)
            try:
                items = open_(candidate)
                try:
                    async for item in items:
                        if committed:
                            yield item
                            continue
                        held.append(item)
                        if committed := commits(item):
                            self._seating.begins(candidate, exchange)
                            for early in held:
                                yield early
                        elif len(held) > HELD_MAX or sum(map(_weight, held)) > HELD_BYTES_MAX:
                            raise BadReply("The upstream sends and sends, but no content.")
                finally:
                    await items.aclose()
                if not committed:
                    raise Incomplete("The upstream ended its answer before it began.")
                self._end(exchange, candidate, None)
                return
            except BaseException as error:  # the caller left, or a fault of ours: noted and raised again
                self._end(exchange, candidate, error)
                if not isinstance(error, GatewayError):
                    raise
                if committed:
                    yield after(error)
                    return
                turns.failed(candidate, error)
                self._call_up(exchange, turns)
            wait = turns.wait(exchange.remaining())
            if wait is None:
                raise turns.conclusion()
            await self._pay(exchange.account)
            exchange.waits(wait)
            await self._sleep(wait)
            turns.reorder()

    def _end(self, exchange: Exchange, candidate: Candidate, error: BaseException | None) -> None:
        self._seating.ended(candidate, exchange, error)
        charge_attempt(exchange, error)
        exchange.attempt_ends(error, self._machines.ended(candidate.card.upstream, exchange.running.machine_mark))
        self._health.ended(candidate.card, error)

    def _call_up(self, exchange: Exchange, turns: Turns) -> None:
        """Lets those follow whom only an emergency allows, once there is one and a try is left."""
        plan, error = exchange.plan, turns.failures[-1][1]
        if plan is None or not plan.reserve or error.again is Again.NEVER or turns.tries_left <= 0:
            return
        trigger = self._emergency(plan, turns.failures)
        if trigger is not None:
            turns.add(exchange.called_up(trigger))

    def _well(self, candidate: Candidate) -> bool:
        return self._health.demoted(candidate.card) is None


def _weight(item: object) -> int:
    """Bytes of an upstream's that an item keeps."""
    return len(getattr(item, "raw", None) or b"")
