"""The ledger of one gateway: holds before an upstream is called, settlements after, and what it takes for both to be
exact when something dies.

What the store does not take goes to the outbox, and `run` brings it there again; it renews what runs here, and settles
what nobody renews any more. Everything is also noted in the journal. An emptied store lends nothing until an operator
has said what it should know. Who may spend how much is decided by those who make the counters.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, TypeVar

from app.core.clock import Clock
from app.core.errors import BudgetStoreUnavailable, GatewayError, StoreUnavailable
from app.core.spending import CostCell, Counter, Lease, Rate, Seats
from app.spend.agreement import Agreement
from app.spend.entries import EXPIRED, EXTENDED, RESERVED, SETTLED, Entry, entry_of
from app.spend.journal import Journal
from app.spend.outbox import Outbox
from app.spend.remembered import Remembered
from app.store import ledger as states
from app.store.leases import HeldLease
from app.store.ledger import (
    MOST_NANO,
    AdmissionReply,
    Admitted,
    Denied,
    LedgerStore,
    Replayed,
    Settled,
    SettlingReply,
    WrongEpoch,
)

LEASE_MS: Final = 30_000
SWEEP_SECONDS: Final = 1.0
AT_ONCE: Final = 100
EXTEND_PAUSES: Final = (0.1, 0.4)
"""Seconds before a hold is asked to be extended once more."""
MOST_REPLAYED: Final = 5_000
"""How many settlements are given again before what runs here is looked after once more."""
MOST_RECORDS: Final = 10_000
"""How many records of free answers wait for the store; what is charged always does."""

AWAY: Final = "What may be spent cannot be asked now, so nothing is."

NEVER_HELD: Final = Settled(False, states.UNKNOWN)

TAKE_BACK, REPLAY, EXPIRE = "take back", "settle again", "settle as expired"
"""What is done for one lease at a time, beside the requests."""

T = TypeVar("T")
CellsOf = Callable[[HeldLease, int], Sequence[CostCell]]

log = logging.getLogger("tierway.spend")


def no_cells(lease: HeldLease, nano: int) -> Sequence[CostCell]:
    """An expiry shows in no aggregate."""
    return ()


def _cells(cells_of: CellsOf, lease: HeldLease, nano: int) -> Sequence[CostCell]:
    """A lease that the aggregates cannot take must not stay held for that."""
    try:
        return cells_of(lease, nano)
    except Exception:  # whatever is wrong with the sums, the money is not
        log.exception("the expiry of lease %s shows in no aggregate", lease.id)
        return ()


class Ledger:
    """`on_crash` says what a lease costs whose gateway died: all it held, or nothing. `over_reserved` is told by how
    much an answer cost more than was held for it, `alert` which limits have less left than before."""

    def __init__(
        self,
        calls: LedgerStore,
        clock: Clock,
        journal: Journal,
        outbox: Outbox,
        *,
        on_crash: Literal["full", "release"],
        over_reserved: Callable[[int], None],
        alert: Callable[[Sequence[Counter]], None],
        lease_ms: int = LEASE_MS,
    ) -> None:
        self.agreement = Agreement(calls, clock)
        self.open_leases: dict[str, Lease] = {}
        self._calls = calls
        self._clock = clock
        self._journal = journal
        self._outbox = outbox
        self._on_crash = on_crash
        self._over_reserved = over_reserved
        self._alert = alert
        self._lease_ms = lease_ms
        self._seats: dict[str, Seats] = {}
        self._doubtful: dict[str, tuple[Lease | None, Seats | None]] = {}
        self._failing: set[tuple[str, str]] = set()
        self._renewed_at = clock.monotonic()
        self._wake = asyncio.Event()

    async def open(self, remembered: Remembered) -> None:
        """Finds out in which epoch the store is. Where it cannot be asked, or is not the one this gateway knows,
        nothing is lent until `run` or an admission finds otherwise."""
        try:
            await self.agreement.open(remembered)
        except StoreUnavailable as error:
            log.warning("the ledger begins without the store: %s", error)

    async def aclose(self) -> None:
        """When nothing is settled any more."""
        await self.agreement.remember()

    async def make_durable(self) -> None:
        """To be called where anything limits spend: what the store acknowledged then survives a loss of power."""
        await self._calls.make_durable()

    # --- one attempt ------------------------------------------------------------------------------------------------

    async def admit(
        self, lease: Lease | None, rates: Sequence[Rate] = (), seats: Seats | None = None, note: bytes = b""
    ) -> AdmissionReply:
        """Raises `BudgetStoreUnavailable` where money is to be held and the store cannot be asked, or has lost its
        books; without a lease, `StoreUnavailable`."""
        if lease is not None:
            lease.held_nano = min(lease.held_nano, MOST_NANO)
        answer = await self._ask(lease, rates, seats, note)
        if isinstance(answer, WrongEpoch) and lease is not None:
            if not self.agreement.adopt(answer):
                raise BudgetStoreUnavailable(self.agreement.why_not, retry_after=30)
            lease.epoch = self.epoch
            answer = await self._ask(lease, rates, seats, note)
        match answer:
            case Replayed(states.HELD, rates=known):  # the store's client asked again by itself
                answer = Admitted(known)
            case Denied(counter):
                self._alert((counter,))
        if isinstance(answer, Admitted):
            if lease is not None:
                self.open_leases[lease.id] = lease
                self._journal.note(entry_of(RESERVED, lease, self._now_ms()))
            if seats is not None:
                self._seats[seats.holder] = seats
        return answer

    async def _ask(
        self, lease: Lease | None, rates: Sequence[Rate], seats: Seats | None, note: bytes
    ) -> AdmissionReply:
        sent = self._calls.reachable
        try:
            return await self._calls.admit(lease, rates, seats, lease_ms=self._lease_ms, note=note)
        except (GatewayError, asyncio.CancelledError) as error:
            if sent:  # and perhaps admitted, while nobody is there to make use of it
                self._doubt(lease, seats)
            if isinstance(error, StoreUnavailable) and lease is not None:
                raise BudgetStoreUnavailable(AWAY, retry_after=1) from error
            raise

    async def extend(self, lease: Lease, more_nano: int) -> bool:
        """Whether that much more is held now. An answer that is under way rather waits a moment for a store that is
        late than end in its middle."""
        for pause in (*EXTEND_PAUSES, None):
            try:
                answer = await self._calls.extend(lease, more_nano)
                break
            except GatewayError as error:
                if pause is None:
                    log.warning("a hold could not be extended: %s", error)
                    return False
                await asyncio.sleep(pause)
        if isinstance(answer, Denied):
            self._alert((answer.counter,))
        if not isinstance(answer, Admitted):
            return False
        lease.held_nano = min(lease.held_nano + more_nano, MOST_NANO)
        self._journal.note(entry_of(EXTENDED, lease, self._now_ms()))
        return True

    async def settle(
        self, lease: Lease, actual_nano: int, final: str = states.SETTLED, cells: Sequence[CostCell] = ()
    ) -> None:
        """Never fails: what the store does not take now it is given again later. `final` is settled, released, or
        recorded for a call that was never held. It is on the disk before it is in the store: who dies in between
        leaves a settlement that the next gateway gives again, never one that no journal knows of."""
        nano = max(0, min(actual_nano, MOST_NANO))
        entry = entry_of(SETTLED, lease, self._now_ms(), nano, final, cells)
        self._journal.note(entry)
        try:
            await self._journal.flush()
            taken = await self._book(entry, lease)
        except (GatewayError, asyncio.CancelledError) as error:
            await self._put_off(entry)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            if not taken:
                await self._put_off(entry)

    async def hand_back(self, rates: Sequence[tuple[Rate, int]] = (), seats: Seats | None = None) -> None:
        """When a request is over. Never fails: units come back with time, and seats are given back later."""
        if seats is not None:
            self._seats.pop(seats.holder, None)
        try:
            await self._calls.hand_back(rates, seats)
        except (GatewayError, asyncio.CancelledError) as error:
            self._doubt(None, seats)
            if isinstance(error, asyncio.CancelledError):
                raise

    # --- what is asked about it -------------------------------------------------------------------------------------

    @property
    def lends(self) -> bool:
        """Whether money can be held now; costs nothing."""
        return self.agreement.agrees and self._calls.reachable

    @property
    def epoch(self) -> str:
        """The one that is spent in."""
        return self.agreement.epoch

    async def used(self, counters: Sequence[Counter]) -> list[tuple[int, int]]:
        """What is (used, held) of each."""
        return await self._calls.used(counters)

    async def held(self, most: int = 1_000) -> list[HeldLease]:
        """Every open lease of all gateways."""
        return await self._calls.held(most)

    # --- beside the requests ----------------------------------------------------------------------------------------

    async def run(self, cells_of: CellsOf = no_cells) -> None:
        """Until it is cancelled. `cells_of` is what an expired lease adds to the aggregates; a late settlement puts
        that right where it names the same cells."""
        while True:
            await self.tend(cells_of)
            try:
                async with asyncio.timeout(min(SWEEP_SECONDS, self._lease_ms / 3_000)):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    async def tend(self, cells_of: CellsOf = no_cells) -> None:
        """All that is due now. What runs here is renewed before what is overdue is looked for: after a pause of this
        process its own leases are both. Never raises."""
        steps: tuple[Callable[[], Awaitable[None]], ...] = (
            self.agreement.remember,
            self.agreement.ask,
            self._renew,
            self._release,
            self._replay,
            lambda: self._expire(cells_of),
        )
        for step in steps:
            try:
                await step()
            except StoreUnavailable:
                return
            except Exception:  # whatever it is: who ends here never settles the dead, nor what waits for the store
                log.exception("the ledger could not do all that is due")

    async def _renew(self) -> None:
        now = self._clock.monotonic()
        if now - self._renewed_at >= self._lease_ms / 3_000:
            await self._calls.renew([*self.open_leases.values()], [*self._seats.values()], self._lease_ms)
            self._renewed_at = now

    async def _release(self) -> None:
        """Takes back what may have been admitted unheard, or was charged as expired meanwhile: written down first."""
        doubtful = list(self._doubtful.items())
        for id, (lease, _) in doubtful:
            if lease is not None and (TAKE_BACK, id) not in self._failing:
                self._journal.note(entry_of(SETTLED, lease, self._now_ms(), 0, states.RELEASED))
        if doubtful:
            await self._journal.flush()
        for id, (lease, seats) in doubtful:
            if await self._apart(TAKE_BACK, id, self._take_back(lease, seats)):
                del self._doubtful[id]

    async def _take_back(self, lease: Lease | None, seats: Seats | None) -> bool:
        if lease is not None:
            await self._calls.settle(lease, 0, states.RELEASED)
        await self._calls.hand_back((), seats)
        return True

    async def _replay(self) -> None:
        """Many at a time: of what a dead gateway left most is booked already, and what is not must not wait for it."""
        waiting = sorted(self._outbox.pending().values(), key=lambda entry: (REPLAY, entry.lease) in self._failing)
        pending = waiting[:MOST_REPLAYED]
        for start in range(0, len(pending), AT_ONCE):
            some = pending[start : start + AT_ONCE]
            if False in await asyncio.gather(
                *(self._apart(REPLAY, each.lease, self._book(each, each.as_lease())) for each in some)
            ):
                return

    async def _expire(self, cells_of: CellsOf) -> None:
        """Written down first, as a settlement is; where a lease turns out to live, its settlement has the last word."""
        words = [self._overdue(due, cells_of) for due in await self._calls.expired(AT_ONCE)]
        for entry in words:
            if (EXPIRE, entry.lease) not in self._failing:
                self._journal.note(entry)
        if words:
            await self._journal.flush()
        for entry in words:
            await self._apart(EXPIRE, entry.lease, self._end(entry))

    async def _end(self, entry: Entry) -> None:
        lease, nano = entry.as_lease(), entry.amount_nano
        said = await self._calls.settle(lease, nano, states.EXPIRED, entry.cells)
        if isinstance(said, Settled) and said.applied:
            log.warning("lease %s of request %s expired; %d nano-dollars charged", lease.id, lease.root_id, nano)
            self._tell(lease, said)

    async def _apart(self, what: str, id: str, work: Awaitable[T]) -> T | None:
        """None where it failed. That is told once, and tried again; the others need not wait for it."""
        try:
            said = await work
        except StoreUnavailable:
            raise
        except Exception:  # one that nobody can book must not keep the money of all the others
            if (what, id) not in self._failing:
                log.exception("the ledger cannot %s lease %s", what, id)
                self._failing.add((what, id))
            return None
        self._failing.discard((what, id))
        return said

    def _overdue(self, due: HeldLease, cells_of: CellsOf) -> Entry:
        nano = due.held_nano if self._on_crash == "full" else 0
        cells = _cells(cells_of, due, nano)
        return entry_of(EXPIRED, due.lease(self.epoch), self._now_ms(), nano, states.EXPIRED, cells)

    # --- the store's books ------------------------------------------------------------------------------------------

    async def _book(self, entry: Entry, lease: Lease) -> bool:
        """False while the store has lost its books."""
        said = await self._calls.settle(lease, entry.amount_nano, entry.final, entry.cells)
        if self._is_forgotten(entry, said):
            log.error("the store forgot what was held for lease %s; it is booked all the same", lease.id)
            said = await self._calls.settle(lease, entry.amount_nano, states.RECORDED, entry.cells)
        if isinstance(said, WrongEpoch) and not self.agreement.adopt(said):
            return False
        self.open_leases.pop(lease.id, None)
        self._outbox.done(lease.id)
        if isinstance(said, Settled) and said.applied:
            if said.before == states.HELD and entry.amount_nano > said.held_nano:
                self._over_reserved(entry.amount_nano - said.held_nano)
            self._tell(lease, said)
        return True

    def _is_forgotten(self, entry: Entry, said: SettlingReply) -> bool:
        """Whether a hold of ours is unknown that was not settled so long ago that it may be: the store lost it, as a
        replica that lagged does."""
        return (
            said == NEVER_HELD
            and entry.amount_nano > 0
            and entry.lease in self.open_leases
            and self._now_ms() - entry.at_ms < states.FINAL_MS // 2
        )

    async def _put_off(self, entry: Entry) -> None:
        if entry.final == states.RECORDED and not entry.amount_nano and len(self._outbox.pending()) >= MOST_RECORDS:
            return
        if not await self._outbox.put(entry):
            log.error("a settlement waits for the store, and the disk does not keep it meanwhile")

    def _tell(self, lease: Lease, said: Settled) -> None:
        if said.delta_nano > 0 and (limited := [each for each in lease.counters if each.limit_nano is not None]):
            self._alert(limited)

    def _doubt(self, lease: Lease | None, seats: Seats | None) -> None:
        id = lease.id if lease is not None else seats.holder if seats is not None else None
        if id is not None:
            self._doubtful[id] = (lease, seats)
            self._wake.set()

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1_000)
