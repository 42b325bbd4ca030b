"""What a request was given is known until it is given back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.core.money import FREE, Tokens
from app.core.record import Attempt
from app.core.spending import CostCell, Lease, Rate, Seats
from app.gateway.account import Account, Hold, Owed
from app.spend.bounds import Bound

ATTEMPT = Attempt("claude/opus", "claude", "ok", None, 1.0, 60, Tokens(10, 5), leased=True)


def cells(attempt: Attempt, *, stands_in: bool = False) -> tuple[CostCell, ...]:
    return (CostCell("costs", f"{attempt.model} {stands_in}", attempt.cost_nano or 0, 0),)


HOLD = Hold(Lease("l", "root", "claude/opus", 100, (), "e"), Bound(10, 5, 5), FREE, cells, calibrated=False)


@pytest.mark.parametrize(
    ("pieces", "size", "room", "outgrown"),
    [
        (9, 900, None, False),
        (5, 50, (5, 50), False),
        (6, 1, (5, 50), True),
        (1, 51, (5, 50), True),
        (1, 0, (0, 0), True),
    ],
)
def test_an_answer_outgrows_its_room_by_pieces_or_bytes(
    pieces: int, size: int, room: tuple[int, int] | None, outgrown: bool
) -> None:
    """Many small pieces are many tokens, and so are few large ones."""
    assert Account(room=room).outgrown(pieces, size) is outgrown


@pytest.mark.parametrize("stands_in", [False, True])
def test_the_end_of_an_attempt_is_what_it_owes(stands_in: bool) -> None:
    account = Account(hold=HOLD, room=(5, 50))
    account.ends(ATTEMPT, stands_in=stands_in, told=True)
    assert account.owed == [Owed(HOLD, 60, (CostCell("costs", f"claude/opus {stands_in}", 60, 0),), 10)]
    assert account.hold is None and account.room is None


@pytest.mark.parametrize(("told", "tokens"), [(False, Tokens(10)), (True, None)])
def test_only_tokens_that_were_told_teach_anything(told: bool, tokens: Tokens | None) -> None:
    account = Account(hold=HOLD)
    account.ends(replace(ATTEMPT, tokens=tokens, cost_nano=None), stands_in=False, told=told)
    assert (account.owed[0].nano, account.owed[0].billed) == (0, None)


def test_who_holds_nothing_owes_nothing() -> None:
    account = Account()
    account.ends(ATTEMPT, stands_in=False, told=True)
    assert account.owed == [] and not account.is_open


@pytest.mark.parametrize(
    "given",
    [
        {"hold": HOLD},
        {"owed": [Owed(HOLD, 0, (), None)]},
        {"rates": (Rate("tokens", "k", 1, 1, 1),)},
        {"seats": Seats("s", 1, "me")},
        {"denied": ("store", None)},
    ],
)
def test_whatever_was_given_or_refused_keeps_it_open(given: dict[str, Any]) -> None:
    """Else a seat stays taken, or a refusal is counted nowhere."""
    assert not Account(entered=True).is_open
    assert Account(**given).is_open
