"""A ceiling that an operator named must hold, and one that nobody named must not be in the way."""

from __future__ import annotations

from app.core.clock import ManualClock
from app.upstreams.gates import Ceiling, Gates


def test_a_ceiling_that_was_said_is_the_most() -> None:
    gates = Gates(ManualClock())
    gates.configure({"said": Ceiling(8, said=True), "usual": Ceiling(8)})
    assert (gates["said"].limit.calls, gates["said"].limit.most) == (8, 8)
    assert gates["usual"].limit.calls == 8 and gates["usual"].limit.grows


def test_those_who_follow_share_the_seats_and_what_was_learnt() -> None:
    """A ceiling is never passed, also by two gateways that call the same server for a while."""
    before, later = Gates(ManualClock()), Gates(ManualClock())
    ceilings = {"gpu": Ceiling(2, said=True), "grown": Ceiling(2), "moved": Ceiling(1, said=True)}
    before.configure(ceilings)
    for _ in range(2):
        assert before["gpu"].enter() and before["grown"].enter()
    before["grown"].ended(1.0, None)
    later.inherit(before, {"gpu", "grown"})
    later.configure(ceilings)
    assert not later["gpu"].enter() and later["moved"].enter() and before["moved"].enter()
    assert later["grown"].limit.calls == 3
    before["gpu"].leave()
    assert later["gpu"].enter() and not before["gpu"].enter()


def test_an_upstream_without_a_ceiling_has_no_gate() -> None:
    assert Gates(ManualClock()).get("tierway") is None


def test_several_processes_divide_it() -> None:
    gates = Gates(ManualClock(), share=1 / 4)
    gates.configure({"gpu": Ceiling(8, said=True), "tiny": Ceiling(1, said=True)})
    assert (gates["gpu"].limit.calls, gates["tiny"].limit.calls) == (2, 1)


def test_who_has_a_seat_keeps_it_when_the_ceiling_changes() -> None:
    told: list[tuple[str, int, int]] = []
    gates = Gates(ManualClock(), lambda *said: told.append(said))
    gates.configure({"gpu": Ceiling(2, said=True)})
    gate = gates["gpu"]
    assert gate.enter() and gate.enter()
    gates.configure({"gpu": Ceiling(1, said=True)})
    assert gates["gpu"] is gate and gate.taken == 2 and not gate.enter()
    assert told == [("gpu", 2, 0), ("gpu", 1, 0)]
