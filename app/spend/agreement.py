"""Whether the store's counters are those this gateway knows: of the same epoch, with all that was acknowledged to it.

A store that was emptied has no epoch. One that is merely old, a backup that was put back or a replica that lagged, has
the right one and would lend once more what was spent since; but it has settled fewer leases than it said it had. How
many those were is written down every second, after the store said so: what a crash forgets of it makes the store seem
ahead, never behind.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from app.core.clock import Clock
from app.spend.epochs import is_by_hand, new_epoch
from app.spend.remembered import Acknowledged, Remembered
from app.store.ledger import LedgerStore, Seen, WrongEpoch

EMPTIED: Final = (
    "The store lost its books of what was spent, so nothing may be spent. `tierway ledger rebuild` restores them from"
    " the journals, `tierway ledger reset` begins new ones."
)
OLDER: Final = (
    "The store is older than the journal of this gateway: it forgot what it had acknowledged, so nothing may be spent."
    " `tierway ledger verify` shows what is missing, `tierway ledger rebuild --force` restores it from the journals,"
    " `tierway ledger reset` begins new books."
)
MOST_PAST: Final = 100

log = logging.getLogger("tierway.spend")


class Agreement:
    """`epoch` is the one this gateway spends in, '' before it saw any; `why_not` says what is wrong while `agrees` is
    False."""

    def __init__(self, calls: LedgerStore, clock: Clock) -> None:
        self.epoch = ""
        self.agrees = True
        self.why_not = EMPTIED
        self._calls = calls
        self._clock = clock
        self._past: tuple[str, ...] = ()
        self._remembered: Remembered | None = None
        self._written = 0

    async def open(self, remembered: Remembered) -> None:
        """Raises `StoreUnavailable` where it cannot be asked now."""
        self._remembered = remembered
        self.epoch = await asyncio.to_thread(remembered.read)
        known = await asyncio.to_thread(remembered.acknowledged, self.epoch, self._now_ms())
        self._past = known.past
        self._written = known.number
        self._calls.seen = Seen(known.name, known.number)
        await self.ask()

    async def ask(self) -> None:
        found = await self._calls.books()
        if not found.epoch and not self.epoch:
            found = WrongEpoch(await self._calls.begin(new_epoch()))
        agreed, self.agrees = self.agrees, self.adopt(found)
        if agreed and not self.agrees:
            log.error(self.why_not)

    def adopt(self, found: WrongEpoch) -> bool:
        """Whether the store's epoch is ours, and whole, or may become it: the first we see, or one begun by hand."""
        epoch = found.epoch
        if epoch and epoch == self.epoch:
            self.why_not = OLDER
            return not found.older
        if not epoch or (self.epoch and (epoch in self._past or not is_by_hand(epoch))):
            self.why_not = OLDER if epoch in self._past else EMPTIED
            return False
        if self.epoch:
            log.warning("an operator began new books: the ledger's epoch is now %s", epoch)
            self._past = (*self._past, self.epoch)[-MOST_PAST:]
        self.epoch = epoch
        self._calls.seen = Seen(self._calls.seen.name)
        self._written = 0
        if self._remembered is not None:
            self._remembered.write(epoch)
            self._remembered.note(self._known())
        return True

    async def remember(self) -> None:
        """What the store acknowledged since. Never fails."""
        seen, known = self._calls.seen, self._known()
        if self._remembered is not None and known.number > self._written:
            await asyncio.to_thread(self._remembered.note, known)
            if seen is self._calls.seen:  # else an operator began new books meanwhile
                self._written = known.number

    def _known(self) -> Acknowledged:
        seen = self._calls.seen
        return Acknowledged(seen.name, self.epoch, seen.number, self._now_ms(), self._past)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1_000)
