"""What one request was given by those who limit it, what it holds now, and what it owes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from app.core.money import Price
from app.core.record import Attempt
from app.core.spending import CostCell, Counter, Lease, Rate, RateState, Seats
from app.core.steps import Steps
from app.spend.bounds import Bound


class Cells(Protocol):
    """As what an attempt is summed up."""

    def __call__(self, attempt: Attempt, *, stands_in: bool = False) -> tuple[CostCell, ...]: ...


class Hold(NamedTuple):
    """What an attempt holds, and what it was reckoned from. `cells`: as what it is summed up once it is over.
    `guarded`: without the store there is none. `lent`: the store knows of it; else it is booked afterwards.
    `lowered`: for a shorter answer than was asked for; `limited`: somebody limits what may be spent on it."""

    lease: Lease
    bound: Bound
    price: Price
    cells: Cells
    calibrated: bool
    guarded: bool = True
    lent: bool = True
    lowered: bool = False
    limited: bool = False


class Owed(NamedTuple):
    """What a finished attempt is charged, on its way to the ledger. `billed` are the tokens of its prompt, where the
    upstream said so, to be compared with what they were reckoned as."""

    hold: Hold
    nano: int
    cells: tuple[CostCell, ...]
    billed: int | None


@dataclass(slots=True)
class Account:
    """`entered`: rates and a seat were taken, once for all attempts. An answer has `room` until it may cost more than
    is held for it: so many pieces, so many bytes; None is no end. `denied` is what kept the request out last: a scope
    or a cause, and the limit. `lowered`: the answer was given less room than its caller left it. `steps`: of a request
    that is traced."""

    entered: bool = False
    rates: tuple[Rate, ...] = ()
    states: tuple[RateState, ...] = ()
    seats: Seats | None = None
    hold: Hold | None = None
    owed: list[Owed] = field(default_factory=list)
    room: tuple[int, int] | None = None
    denied: tuple[str, Counter | None] | None = None
    lowered: bool = False
    steps: Steps | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything is left to pay, to give back or to tell."""
        return bool(self.hold or self.owed or self.rates or self.seats or self.denied)

    def outgrown(self, pieces: int, size: int) -> bool:
        return self.room is not None and (pieces > self.room[0] or size > self.room[1])

    def ends(self, attempt: Attempt, *, stands_in: bool, told: bool) -> None:
        """The attempt that the hold was for is over, and is charged what it says. `told`: its tokens are no guess."""
        if (hold := self.hold) is not None:
            self.hold = self.room = None
            billed = attempt.tokens.prompt if told and attempt.tokens is not None else None
            self.owed.append(Owed(hold, attempt.cost_nano or 0, hold.cells(attempt, stands_in=stands_in), billed))
