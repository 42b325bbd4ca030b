"""Whose turn it is next: the candidates that are left, those that something keeps out, and what failed so far.

One for each walk over a plan. Whom money or a full line keeps out is asked again once nobody else is left, for less;
that is no attempt, and says nothing about anybody's health.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from app.core.errors import (
    Again,
    Blame,
    BudgetExceeded,
    BudgetStoreUnavailable,
    GatewayError,
    Shed,
    UnsupportedParameter,
)
from app.core.money import FREE
from app.core.plan import Candidate
from app.gateway.conclusion import Failures, conclusion

Enter = Callable[[Candidate, bool], Awaitable[None]]

KEEPS_OUT: Final = (BudgetExceeded, BudgetStoreUnavailable, UnsupportedParameter, Shed)
"""What keeps a request from one candidate only."""
ASK_NOBODY: Final = (None, FREE)
"""Prices for which nothing is held, so that nobody asks the store."""
TRIES_PER_CANDIDATE: Final = 2
BACKOFF_SECONDS: Final = 0.25
WAIT_MAX_SECONDS: Final = 5.0


class Turns:
    """`most` attempts are made in all. `well` says who is in good health, `retry` whether one more retry is allowed."""

    def __init__(
        self,
        candidates: Iterable[Candidate],
        most: int,
        well: Callable[[Candidate], bool],
        retry: Callable[[], bool],
    ) -> None:
        self.failures: Failures = []
        self.left = list(candidates)
        self._kept_out: list[Candidate] = []
        self._denied: Failures = []
        self._most = most
        self._well = well
        self._retry = retry

    @property
    def tries_left(self) -> int:
        return self._most - len(self.failures)

    async def next(self, enter: Enter) -> Candidate:
        """The first of those left that the request may go to. Raises the error for the client when there is none."""
        while self.left or self._kept_out:
            again = not self.left
            candidate = (self._kept_out if again else self.left).pop(0)
            at_last = again or not (self.left or self._kept_out)
            try:
                await enter(candidate, at_last)
            except KEEPS_OUT as error:
                self._denied.append((candidate, error))
                if isinstance(error, (BudgetExceeded, Shed)) and not at_last:
                    self._kept_out.append(candidate)
                elif isinstance(error, BudgetStoreUnavailable):  # nobody waits for it twice
                    self.left = [each for each in self.left if each.card.price in ASK_NOBODY]
                    self._kept_out = [each for each in self._kept_out if each.card.price in ASK_NOBODY]
            else:
                return candidate
        raise self.conclusion() if self.failures else self._denied[0][1]

    def failed(self, candidate: Candidate, error: GatewayError) -> None:
        """An attempt there came to nothing."""
        self.failures.append((candidate, error))

    def add(self, candidates: Iterable[Candidate]) -> None:
        """These may follow, too."""
        self.left.extend(candidates)

    def wait(self, remaining: float) -> float | None:
        """Prepares the next attempt; seconds to wait before it, None when there is none."""
        candidate, error = self.failures[-1]
        if error.again is Again.NEVER or self.tries_left <= 0 or remaining <= 0:
            return None
        tries = sum(failed is candidate for failed, _ in self.failures)
        # The same again only with a try to spare: every other candidate comes to its turn first.
        again = error.again is Again.SAME and tries < TRIES_PER_CANDIDATE and len(self.left) < self.tries_left
        if again and (self._well(candidate) or not any(map(self._well, self.left))):
            wait = error.retry_after or random.uniform(0, BACKOFF_SECONDS * 2**tries)
            if wait <= min(remaining, WAIT_MAX_SECONDS) and self._retry():
                self.left.insert(0, candidate)
                return wait
        if error.again is Again.LARGER:
            self._leave_out_up_to(candidate.card.context_window or 0)
        return 0.0 if self.left or self._kept_out else None

    def reorder(self) -> None:
        """Puts behind the others who fell sick since the plan was made, as the models of a dead server do all at once;
        the last try goes to a server that has not failed yet."""
        last = self.tries_left == 1
        failed = {each.card.upstream for each, error in self.failures if error.blame is Blame.UPSTREAM} if last else ()
        if len(self.left) > 1:
            self.left.sort(key=lambda each: (not self._well(each), each.card.upstream in failed))

    def conclusion(self) -> GatewayError:
        """What the client is told of all failures."""
        return conclusion(self.failures, (*self.left, *self._denied), self._well)

    def _leave_out_up_to(self, window: int) -> None:
        """Those whose window is no larger, either."""
        for queue in (self.left, self._kept_out):
            for other in [each for each in queue if (each.card.context_window or window + 1) <= window]:
                queue.remove(other)
