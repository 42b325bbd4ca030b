"""The one retry loop: walks the plan, owns tries and time, and knows whose fault a failure was.

An attempt is committed by its first content. Before that, a failure moves on as its error's `again` says; after it,
the answer ends with a Fault, and no other model is spliced in.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

from app.core.errors import Again, BadReply, Blame, BudgetExceeded, BudgetStoreUnavailable, GatewayError, Incomplete
from app.core.plan import Candidate, Plan
from app.gateway.charging import settled_usage
from app.gateway.conclusion import Failures, conclusion
from app.gateway.exchange import Exchange
from app.gateway.retries import RetryBudget
from app.spend.machines import Machines
from app.upstreams.health import Health

T = TypeVar("T")
Open = Callable[[Candidate], AsyncGenerator[T, None]]
Enter = Callable[[Candidate, bool], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]
Emergency = Callable[[Plan, Failures], str | None]

MAX_ATTEMPTS: Final = 3
TRIES_PER_CANDIDATE: Final = 2
HELD_MAX: Final = 64
BACKOFF_SECONDS: Final = 0.25
WAIT_MAX_SECONDS: Final = 5.0


def _no_emergency(plan: Plan, failures: Failures) -> str | None:
    return None


class Attempts:
    """Shared by all requests: health of the upstreams and the budget for retries. `emergency` says what allows a plan's
    reserve to be tried, after these failures."""

    def __init__(
        self,
        health: Health,
        max_attempts: int = MAX_ATTEMPTS,
        sleep: Sleep = asyncio.sleep,
        emergency: Emergency = _no_emergency,
    ) -> None:
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
        assert exchange.plan is not None
        self._budget.request()
        failures: Failures = []
        left = deque(exchange.plan.candidates)
        while True:
            candidate = await _entered(left, enter, failures)
            committed, held = False, list[T]()
            exchange.attempt_begins(candidate)
            self._health.started(candidate.card)
            exchange.machine_mark = self._machines.started(candidate.card.upstream)
            try:
                async with contextlib.aclosing(open_(candidate)) as items:
                    async for item in items:
                        if committed:
                            yield item
                            continue
                        held.append(item)
                        if committed := commits(item):
                            for early in held:
                                yield early
                        elif len(held) > HELD_MAX:
                            raise BadReply("The upstream sends and sends, but no content.")
                if not committed:
                    raise Incomplete("The upstream ended its answer before it began.")
                self._end(exchange, candidate, None)
                return
            except GatewayError as error:
                self._end(exchange, candidate, error)
                if committed:
                    yield after(error)
                    return
                failures.append((candidate, error))
                left.extend(self._called_up(exchange, failures))
            except BaseException as error:  # the caller left, or a fault of ours: noted and raised again
                self._end(exchange, candidate, error)
                raise
            wait = self._next(candidate, failures, left, exchange.remaining())
            if wait is None:
                raise conclusion(failures, left, self._well)
            exchange.waits(wait)
            await self._sleep(wait)
            self._reorder(left, failures)

    def _end(self, exchange: Exchange, candidate: Candidate, error: BaseException | None) -> None:
        if exchange.usage is not None or exchange.first_content is not None or exchange.account.hold is not None:
            settled_usage(exchange, error)
        exchange.attempt_ends(error, self._machines.ended(candidate.card.upstream, exchange.machine_mark))
        self._health.ended(candidate.card, error)

    def _called_up(self, exchange: Exchange, failures: Failures) -> tuple[Candidate, ...]:
        """Whom only an emergency allows, once there is one and a try is left."""
        plan, error = exchange.plan, failures[-1][1]
        if plan is None or not plan.reserve or error.again is Again.NEVER or len(failures) >= self._max_attempts:
            return ()
        trigger = self._emergency(plan, failures)
        return () if trigger is None else exchange.called_up(trigger)

    def _next(
        self,
        candidate: Candidate,
        failures: Failures,
        left: deque[Candidate],
        remaining: float,
    ) -> float | None:
        """Prepares the next attempt; seconds to wait before it, None when there is none."""
        error, tries_left = failures[-1][1], self._max_attempts - len(failures)
        if error.again is Again.NEVER or tries_left <= 0 or remaining <= 0:
            return None
        tries = sum(failed is candidate for failed, _ in failures)
        # The same again only with a try to spare: every other candidate comes to its turn first.
        again = error.again is Again.SAME and tries < TRIES_PER_CANDIDATE and len(left) < tries_left
        if again and (self._well(candidate) or not any(map(self._well, left))):
            wait = error.retry_after or random.uniform(0, BACKOFF_SECONDS * 2**tries)
            if wait <= min(remaining, WAIT_MAX_SECONDS) and self._budget.take():
                left.appendleft(candidate)
                return wait
        if error.again is Again.LARGER:
            window = candidate.card.context_window or 0
            for other in [c for c in left if (c.card.context_window or window + 1) <= window]:
                left.remove(other)
        return 0.0 if left else None

    def _reorder(self, left: deque[Candidate], failures: Failures) -> None:
        """Puts behind the others who fell sick since the plan was made, as the models of a dead server do all at once;
        the last try goes to a server that has not failed yet."""
        last = len(failures) == self._max_attempts - 1
        failed = {each.card.upstream for each, error in failures if error.blame is Blame.UPSTREAM} if last else ()
        if len(left) > 1:
            ordered = sorted(left, key=lambda each: (not self._well(each), each.card.upstream in failed))
            left.clear()
            left.extend(ordered)

    def _well(self, candidate: Candidate) -> bool:
        return self._health.demoted(candidate.card) is None


async def _entered(left: deque[Candidate], enter: Enter, failures: Failures) -> Candidate:
    """The first of those left that the request may go to; whom money keeps out is asked again at last, for less."""
    kept_out: deque[Candidate] = deque()
    denial: GatewayError | None = None
    for at_last, queue in ((False, left), (True, kept_out)):
        while queue:
            candidate = queue.popleft()
            try:
                await enter(candidate, at_last)
            except (BudgetExceeded, BudgetStoreUnavailable) as error:
                denial = denial or error
                if not at_last:
                    kept_out.append(candidate)
            else:
                return candidate
    if failures:
        raise conclusion(failures)
    assert denial is not None, "a plan has a candidate"
    raise denial
