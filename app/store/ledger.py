"""The ledger at the store: typed calls over scripts, each all or nothing, each safe to send twice. No policy: who holds
how much against which limits, and what happens when the store is away, is decided by callers.

A lease is a hash that lives until it is settled, and a little longer so that a repeated call finds it final; when it is
due stands in one sorted set. A counter is a hash of `u` (used) and `h` (held).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from app.core.errors import InternalError
from app.core.spending import CostCell, Counter, Lease, Rate, RateState, Seats
from app.store import layout
from app.store.admitting import LEASE, Admission
from app.store.admitting import asked as asked_to_admit
from app.store.client import Store
from app.store.leases import HeldLease, OpenLeases
from app.store.link import Value
from app.store.scripts import load
from app.store.settling import Settlement
from app.store.settling import asked as asked_to_settle
from app.store.together import Together

ADMIT: Final = load("admit")
EXTEND: Final = load("extend")
SETTLE: Final = load("settle")
RENEW: Final = load("renew")
HAND_BACK: Final = load("hand_back")

HELD, SETTLED, RELEASED, EXPIRED, RECORDED = "held", "settled", "released", "expired", "recorded"
UNKNOWN: Final = ""

OPEN_MS: Final = layout.lifetime("lease") * 1_000
SEATS_MS: Final = 3_600_000
FINAL_MS: Final = 600_000
"""How long a settled lease is remembered. Unknown means settled as well, so this only has to outlive a call that was
given up but still lies in some buffer."""
SEEN_SECONDS: Final = layout.lifetime("acknowledged")
MOST_NANO: Final = 10**15
"""What one call is held or charged for at most, a million dollars, so that no sum overflows, whatever an upstream says
that it used."""
AT_ONCE: Final = 200  # leases renewed in one call, so that no script keeps others waiting


class Admitted(NamedTuple):
    rates: tuple[RateState, ...] = ()


class Limited(NamedTuple):
    """A rate says no. `retry_after_seconds` is infinite when the cost can never fit."""

    rate: RateState
    retry_after_seconds: float
    rates: tuple[RateState, ...]


class NoSeat(NamedTuple):
    most: int


class Denied(NamedTuple):
    """What is left of this counter's limit is too little."""

    counter: Counter
    used_nano: int
    held_nano: int


class WrongPeriod(NamedTuple):
    """The counters are not those of the server's moment: make them anew for `now_ms` and ask again."""

    now_ms: int


class WrongEpoch(NamedTuple):
    """The store's counters are not those that the lease was made for; `epoch` is theirs, '' where there are none.
    `older`: it is the lease's, but the store does not know of all that it acknowledged in it."""

    epoch: str
    older: bool = False


class Replayed(NamedTuple):
    """The lease is known already, and this is its state ('' where extending found none)."""

    state: str
    rates: tuple[RateState, ...] = ()


class Settled(NamedTuple):
    """`applied` False: it was final before. `before` is the state it had, '' for none; `delta_nano` what was added to
    `used`, `held_nano` what had been held."""

    applied: bool
    before: str
    delta_nano: int = 0
    held_nano: int = 0


class NotDue(NamedTuple):
    """The lease was renewed before it could expire."""


@dataclass(slots=True)
class Seen:
    """How many settlements the store has acknowledged to the gateways of one data folder, by its `name`, in one life of
    the counters: it may know of more, and of fewer only when it is older than what was acknowledged."""

    name: str = "-"
    number: int = 0


AdmissionReply = Admitted | Limited | NoSeat | Denied | WrongPeriod | WrongEpoch | Replayed
ExtensionReply = Admitted | Denied | Replayed
SettlingReply = Settled | NotDue | WrongEpoch


class LedgerStore:
    def __init__(self, store: Store) -> None:
        self.seen = Seen()
        self._store = store
        self._leases = OpenLeases(store)
        self._admitting = Together(partial(self._admit, again=True))
        self._admitting_once = Together(partial(self._admit, again=False))
        self._settling = Together(self._settle)
        self._durable = False

    @property
    def reachable(self) -> bool:
        """Whether a call would be sent; costs nothing."""
        return self._store.healthy

    async def make_durable(self) -> None:
        """From now on what the store has acknowledged survives a loss of power too, and is counted in `seen`."""
        await self._store.make_durable()
        self._durable = True

    async def books(self) -> WrongEpoch:
        """As admitting would say it, were they wrong."""
        known = self.seen.number
        epoch, seen = await self._store.call("MGET", layout.EPOCH, _seen_key(self.seen), again=True)
        try:
            return WrongEpoch("" if epoch is None else _text(epoch), int(seen or 0) < known)
        except (TypeError, ValueError) as error:
            raise _nonsense() from error

    async def epoch(self) -> str | None:
        found = await self._store.call("GET", layout.EPOCH, again=True)
        return None if found is None else _text(found)

    async def begin(self, epoch: str) -> str:
        """The epoch that stands now: this one, unless there was another."""
        await self._store.call("SET", layout.EPOCH, epoch, "NX", again=True)
        return await self.epoch() or ""

    async def admit(
        self,
        lease: Lease | None,
        rates: Sequence[Rate] = (),
        seats: Seats | None = None,
        *,
        lease_ms: int,
        note: bytes = b"",
    ) -> AdmissionReply:
        """All or nothing. `note` is JSON for people. Without a lease nothing tells a repetition, so it is sent once."""
        nano = 0 if lease is None else min(lease.held_nano, MOST_NANO)
        asking = self._admitting_once if lease is None else self._admitting
        reply = await asking.ask(Admission(lease, nano, rates, seats, note, lease_ms))
        try:
            return _admission(reply, lease.counters if lease else (), rates, seats)
        except (TypeError, ValueError, LookupError) as error:
            raise _nonsense() from error

    def _admit(self, some: Sequence[Admission], *, again: bool) -> asyncio.Future[Any]:
        keys = (layout.EPOCH, layout.LEASES, _seen_key(self.seen))
        rest = (OPEN_MS, SEATS_MS, self.seen.number)
        return self._store.run(ADMIT, *asked_to_admit(some, keys, rest), again=again)

    async def extend(self, lease: Lease, more_nano: int) -> ExtensionReply:
        """The lease stays as it is: it is the caller's to change once this is admitted."""
        keys = (LEASE + lease.id, *[counter.key for counter in lease.counters])
        limits = [-1 if counter.limit_nano is None else counter.limit_nano for counter in lease.counters]
        reply = await self._store.run(EXTEND, keys, (min(lease.held_nano + more_nano, MOST_NANO), *limits), again=True)
        try:
            return _extension(reply, lease.counters)
        except (TypeError, ValueError, LookupError) as error:
            raise _nonsense() from error

    async def settle(
        self, lease: Lease, actual_nano: int | None, final: str, cells: Sequence[CostCell] = ()
    ) -> SettlingReply:
        """`final` is settled, released, expired (taken only when the lease is due), or recorded: books a call that was
        never held. `actual_nano` None: all that is held. The cells are added once; where an expired lease is settled
        late, what its expiry added to the same cells is taken off first."""
        seen, durable = self.seen, self._durable
        actual = "" if actual_nano is None else max(0, min(actual_nano, MOST_NANO))
        reply = await self._settling.ask(Settlement(LEASE + lease.id, lease, actual, final, cells))
        try:
            said = _settlement(reply)
            if durable and isinstance(said, Settled) and said.applied:
                seen.number = max(seen.number, int(reply[4]))
            return said
        except (TypeError, ValueError, LookupError) as error:
            raise _nonsense() from error

    def _settle(self, some: Sequence[Settlement]) -> asyncio.Future[Any]:
        seen = self.seen  # as it is when it is sent
        known: Value = seen.number if self._durable or seen.number else ""
        keys = (layout.EPOCH, layout.LEASES, _seen_key(seen))
        return self._store.run(
            SETTLE, *asked_to_settle(some, keys, (OPEN_MS, FINAL_MS, known, SEEN_SECONDS)), again=True
        )

    async def hand_back(self, rates: Sequence[tuple[Rate, int]] = (), seats: Seats | None = None) -> None:
        """Units that were asked for and not used, and the seat of a request that is over. Sent once: what is lost on
        the way comes back by itself, units with time and seats when they are due."""
        keys = [rate.key for rate, _ in rates]
        args: list[Value] = [len(rates), "" if seats is None else seats.holder]
        for rate, units in rates:
            args += (rate.emission_us, units)
        if seats is not None:
            keys.append(seats.key)
        if keys:
            await self._store.run(HAND_BACK, keys, args, again=not rates)

    async def renew(self, leases: Sequence[Lease], seats: Sequence[Seats], lease_ms: int) -> None:
        """From now on they are due in `lease_ms`; those that are no more stay so."""
        for start in range(0, max(len(leases), len(seats)), AT_ONCE):
            some, chairs = leases[start : start + AT_ONCE], seats[start : start + AT_ONCE]
            keys = (layout.LEASES, *(each.key for each in chairs))
            args: Sequence[Value] = (
                lease_ms,
                SEATS_MS,
                *(each.holder for each in chairs),
                *(lease.id for lease in some),
            )
            await self._store.run(RENEW, keys, args, again=True)

    async def expired(self, most: int = 100) -> list[HeldLease]:
        """Leases that are due on the server's clock, to be settled as expired."""
        return await self._leases.due(most)

    async def held(self, most: int = 1_000) -> list[HeldLease]:
        """Every open lease, those that are due first coming first."""
        return await self._leases.all(most)

    async def used(self, counters: Sequence[Counter]) -> list[tuple[int, int]]:
        """What is (used, held) of each."""
        replies = await asyncio.gather(
            *(self._store.call("HMGET", counter.key, "u", "h", again=True) for counter in counters)
        )
        return [(int(used or 0), int(held or 0)) for used, held in replies]


# --- what a call says -------------------------------------------------------------------------------------------------


def _seen_key(seen: Seen) -> str:
    return f"{_ACKNOWLEDGED}{seen.name}"


_ACKNOWLEDGED: Final = layout.key("acknowledged", "")


# --- what the store answers -------------------------------------------------------------------------------------------


def _nonsense() -> InternalError:
    return InternalError("The store gave an answer that is none.")


def _text(value: Any) -> str:
    return str(value, "utf-8", "replace")


def _states(numbers: Sequence[Any], rates: Sequence[Rate]) -> tuple[RateState, ...]:
    return tuple(
        RateState(rate.kind, rate.burst, int(numbers[2 * i]), int(numbers[2 * i + 1]) / 1e6)
        for i, rate in enumerate(rates)
    )


def _admission(reply: Any, counters: Sequence[Counter], rates: Sequence[Rate], seats: Seats | None) -> AdmissionReply:
    match reply[0]:
        case 1:
            return Admitted(_states(reply[1:], rates)) if rates else _PLAINLY
        case 0:
            return Denied(counters[reply[1] - 1], int(reply[2]), int(reply[3]))
        case 2:
            return Replayed(_text(reply[1]), _states(reply[2:], rates))
        case 3:
            states = _states(reply[3:], rates)
            wait = int(reply[2])
            return Limited(states[reply[1] - 1], math.inf if wait < 0 else wait / 1e6, states)
        case 4 if seats is not None:
            return NoSeat(seats.most)
        case -1:
            return WrongEpoch(_text(reply[1]), reply[2] == 1)
        case -2:
            return WrongPeriod(int(reply[1]))
    raise ValueError(reply)


_PLAINLY: Final = Admitted()


def _extension(reply: Any, counters: Sequence[Counter]) -> ExtensionReply:
    match reply[0]:
        case 1:
            return _PLAINLY
        case 0:
            return Denied(counters[reply[1] - 1], int(reply[2]), int(reply[3]))
        case 2:
            return Replayed(_text(reply[1]))
    raise ValueError(reply)


def _settlement(reply: Any) -> SettlingReply:
    match reply[0]:
        case 1:
            return Settled(True, _text(reply[1]), int(reply[2]), int(reply[3]))
        case 2:
            return Settled(False, _text(reply[1]))
        case 3:
            return NotDue()
        case -1:
            return WrongEpoch(_text(reply[1]), reply[2] == 1)
    raise ValueError(reply)
