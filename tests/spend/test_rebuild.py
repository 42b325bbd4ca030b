"""If these sums were wrong a rebuilt store would let spend pass its limits, and verifying would cry wolf or sleep."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.spending import CostCell, Counter
from app.spend.entries import CORRECTED, EXPIRED, EXTENDED, RESERVED, SETTLED, Entry
from app.spend.journal import EVER
from app.spend.rebuild import (
    Books,
    Correctable,
    Difference,
    Kept,
    Look,
    Open,
    books_of,
    charge_of,
    correctable,
    costs_of,
    differences,
    expected,
)
from tests.spend.steps import CELL, DAY, ENDS_MS, NOW_MS, REQUEST, TOTAL, step

EPOCH = "begun-1"


def leases(*what: Entry, cells: bool = False) -> Mapping[str, Entry]:
    return books_of(what, with_cells=cells).of_epoch(EPOCH)


@pytest.mark.parametrize(
    ("steps", "charge"),
    [
        ([step()], 700),
        ([step(), step(EXTENDED, held=900)], 900),
        ([step(SETTLED, amount=5)], 5),
        ([step(), step(EXTENDED, held=900), step(SETTLED, amount=5)], 5),
        ([step(), step(EXPIRED, amount=700)], 700),
        ([step(), step(EXPIRED, amount=700), step(SETTLED, amount=950)], 950),
        ([step(EXPIRED, amount=700), step(CORRECTED, amount=6), step(SETTLED, amount=5)], 6),
        ([step(EXPIRED, amount=700), step(EXPIRED, amount=900, held=900)], 900),
        ([step(), step(SETTLED, amount=0, final="released")], 0),
        ([step(SETTLED, amount=5), step(SETTLED, amount=8, at_ms=NOW_MS + 1)], 5),
    ],
)
def test_the_last_word_on_a_lease_is_its_charge(steps: list[Entry], charge: int) -> None:
    found = leases(*steps)
    assert [charge_of(entry, "full") for entry in found.values()] == [charge]
    assert leases(*reversed(steps)) == found == leases(*steps, *steps)


def test_what_only_was_reserved_costs_what_was_agreed() -> None:
    assert (charge_of(step(), "full"), charge_of(step(), "release")) == (700, 0)
    assert charge_of(step(EXPIRED, amount=700), "release") == 700


# What really happened, as a plain sum, against what the entries say in any order, torn, and more than once.
histories = st.lists(
    st.tuples(
        st.integers(1, 50),
        st.sampled_from(["held", "settled", "expired", "late", "released"]),
        st.integers(0, 60),
        st.sampled_from([(DAY,), (DAY, TOTAL), (TOTAL, REQUEST)]),
    ),
    max_size=12,
)


def told(history: Sequence[tuple[int, str, int, tuple]]) -> tuple[list[Entry], dict[str, int]]:  # type: ignore[type-arg]
    entries: list[Entry] = []
    sums: dict[str, int] = {}
    for number, (held, end, actual, counters) in enumerate(history):
        id = str(number)
        entries.append(step(RESERVED, id, held=held, counters=counters))
        if end in ("expired", "late"):
            entries.append(step(EXPIRED, id, held, held=held, counters=counters))
        if end in ("settled", "late"):
            entries.append(step(SETTLED, id, actual, held=held, counters=counters))
        if end == "released":
            entries.append(step(SETTLED, id, 0, held=held, counters=counters, final="released"))
        charge = {"held": held, "expired": held, "released": 0}.get(end, actual)
        for counter in counters:
            sums[counter.key] = sums.get(counter.key, 0) + charge
    return entries, sums


@given(histories, st.randoms(use_true_random=False), st.data())
def test_order_and_repetition_do_not_matter(
    history: list[tuple[int, str, int, tuple]],  # type: ignore[type-arg]
    chance: random.Random,
    data: st.DataObject,
) -> None:
    entries, sums = told(history)
    twice = entries + (data.draw(st.lists(st.sampled_from(entries))) if entries else [])
    chance.shuffle(twice)
    found = expected(leases(*twice), "full")
    assert {key: (each.low, each.high) for key, each in found.items()} == {key: (s, s) for key, s in sums.items()}


def test_a_counter_is_known_with_its_end() -> None:
    found = expected(leases(step(counters=(DAY, TOTAL, REQUEST)), step(id="b", counters=(REQUEST,), at_ms=5)), "full")
    assert [found[each.key].over_ms for each in (DAY, TOTAL, REQUEST)] == [ENDS_MS, EVER, NOW_MS + REQUEST.keep_ms]
    assert found[REQUEST.key].low == 1_400


def test_only_epochs_since_the_last_reset_count() -> None:
    books = books_of([step(), step(id="b", epoch="reset-2", at_ms=NOW_MS + 1)])
    assert {*books.of_epoch("reset-2")} == {"b"} and {*books.of_epoch("reset-3")} == set()
    assert {*books_of([step(), step(id="b", epoch="rebuilt-2")]).of_epoch("rebuilt-2")} == {"a", "b"}


def test_who_was_never_settled_can_be_corrected() -> None:
    found = correctable(leases(step(), step(EXPIRED, "b", 600), step(SETTLED, "c", 5)), "full")
    assert found == [Correctable(step(), 700), Correctable(step(EXPIRED, "b", 600), 600)]
    assert correctable(leases(step()), "release") == [Correctable(step(), 0)]


def test_costs_are_summed_where_they_are_asked_for() -> None:
    ever = CostCell("{tierway}:costs-total", "n", 3, 0)
    steps = (
        step(SETTLED, "a", 5, cells=(CELL, ever)),
        step(SETTLED, "b", 5, cells=(CELL,), at_ms=NOW_MS + 9),
        step(EXPIRED, "b", 700, cells=(CELL, CELL)),
        step(RESERVED, "c", cells=(CELL,)),
    )
    found = costs_of(leases(*steps, cells=True))
    assert (found[CELL.key].fields, found[ever.key].fields) == ({CELL.field: 2}, {"n": 3})
    assert (found[CELL.key].over_ms, found[ever.key].over_ms) == (NOW_MS + 9 + CELL.seconds * 1000, 0)
    assert costs_of(leases(*steps)) == {}


def test_counters_are_kept_once_however_many_leases_name_them() -> None:
    books = Books()
    for id in "ab":
        books.add(step(id=id, counters=(Counter(*DAY),)))
    assert books.leases["a"].counters is books.leases["b"].counters


# --- comparing --------------------------------------------------------------------------------------------------------


def look(
    used: int = 0,
    held: int = 0,
    opened: Sequence[str] = (),
    after: Sequence[str] | None = None,
    waiting: Sequence[str] = (),
    now_ms: int = NOW_MS,
) -> Look:
    lease = Open(700, (DAY.key,))
    return Look(
        now_ms,
        {DAY.key: Kept(used, held, False)},
        dict.fromkeys(opened, lease),
        dict.fromkeys(opened if after is None else after, lease),
        waiting,
    )


def steps(*what: tuple[str, str, int]) -> Mapping[str, Entry]:
    return leases(*(step(op, id, amount, counters=(DAY,)) for op, id, amount in what))


RESERVED_A, SETTLED_A, EXPIRED_A = (RESERVED, "a", 0), (SETTLED, "a", 300), (EXPIRED, "a", 700)


@pytest.mark.parametrize(
    ("before", "after", "seen", "right"),
    [
        # nothing moves
        ([], [], look(0), True),
        ([SETTLED_A], [SETTLED_A], look(300), True),
        ([SETTLED_A], [SETTLED_A], look(299), False),
        ([SETTLED_A], [SETTLED_A], look(301), False),
        ([], [], look(1), False),
        # open
        ([RESERVED_A], [RESERVED_A], look(0, 700, ["a"]), True),
        ([RESERVED_A], [RESERVED_A], look(0, 0, ["a"]), False),
        ([RESERVED_A], [RESERVED_A], look(700, 700, ["a"]), False),
        ([], [], look(0, 700, ["a"]), True),  # its entry is not written yet
        ([], [], look(0, 700), False),  # a phantom hold
        # ended in a crash
        ([RESERVED_A], [RESERVED_A], look(700), True),
        ([RESERVED_A], [RESERVED_A], look(0), False),
        ([RESERVED_A], [EXPIRED_A], look(700), True),
        # admitted or ended while we looked
        ([], [RESERVED_A], look(0, 700, [], ["a"]), True),
        ([], [RESERVED_A], look(0, 0, [], ["a"]), True),
        ([], [RESERVED_A], look(0), True),
        ([RESERVED_A], [SETTLED_A], look(0, 700, ["a"], []), True),
        ([RESERVED_A], [SETTLED_A], look(300, 0, ["a"], []), True),
        ([RESERVED_A], [SETTLED_A], look(300, 0), True),
        ([RESERVED_A], [SETTLED_A], look(800, 0, ["a"], []), False),
        ([], [SETTLED_A], look(300), True),
        ([], [SETTLED_A], look(0, 700), True),  # it came and went between two readings of what is open
        ([RESERVED_A], [SETTLED_A], look(0, 700), True),
        ([], [SETTLED_A], look(0, 701), False),
        ([SETTLED_A], [SETTLED_A], look(300, 700), False),
        ([EXPIRED_A], [SETTLED_A], look(300, 700), False),
        ([RESERVED_A], [RESERVED_A], look(700, 700), False),
        ([SETTLED_A], [SETTLED_A], look(0, 700, ["a"]), True),  # told to the journal, not yet to the store
        ([EXPIRED_A], [SETTLED_A], look(700), True),
        ([EXPIRED_A], [SETTLED_A], look(300), True),
        ([EXPIRED_A], [SETTLED_A], look(299), False),
        # the store was away
        ([SETTLED_A], [SETTLED_A], look(0, 700, ["a"], waiting=["a"]), True),
        ([SETTLED_A], [SETTLED_A], look(700, waiting=["a"]), True),
        ([SETTLED_A], [SETTLED_A], look(701, waiting=["a"]), False),
        # over
        ([SETTLED_A], [SETTLED_A], look(1, now_ms=ENDS_MS - 1_000), True),
        ([SETTLED_A], [SETTLED_A], look(1, now_ms=ENDS_MS - 100_000), False),
    ],
)
def test_what_moves_while_we_look_is_no_difference_and_all_else_is(
    before: list[tuple[str, str, int]], after: list[tuple[str, str, int]], seen: Look, right: bool
) -> None:
    found = differences(steps(*before), steps(*after), seen, "full")
    assert (found == []) is right


@pytest.mark.parametrize(("held", "right"), [(900, True), (901, False)])
def test_what_grew_and_ended_while_we_looked_is_no_difference(held: int, right: bool) -> None:
    after = leases(step(SETTLED, "a", 300, held=900, counters=(DAY,)))
    found = differences(steps(RESERVED_A), after, look(0, held, ["a"], []), "full")
    assert (found == []) is right


def test_a_difference_says_what_where_and_how_much() -> None:
    books = steps(SETTLED_A)
    assert differences(books, books, look(7, 9), "full") == [
        Difference(DAY.key, DAY.id, "used", 300, 300, 7),
        Difference(DAY.key, DAY.id, "held", 0, 0, 9),
    ]
    assert differences({}, {}, look(7), "full") == [Difference(DAY.key, "", "used", 0, 0, 7)]


def test_a_counter_that_is_gone_is_a_difference_unless_it_may_be_forgotten() -> None:
    gone = Look(NOW_MS, {}, {}, {})
    for counter, missed in ((DAY, True), (TOTAL, True), (REQUEST, True)):
        books = leases(step(SETTLED, "a", 5, counters=(counter,)))
        assert bool(differences(books, books, gone, "full")) is missed
        late = gone._replace(now_ms=NOW_MS + REQUEST.keep_ms - 1_000)
        assert bool(differences(books, books, late, "full")) is (counter is TOTAL)


def test_what_the_store_soon_forgets_needs_no_proof() -> None:
    seen = Look(NOW_MS, {DAY.key: Kept(5, 0, True)}, {}, {})
    assert differences({}, {}, seen, "full") == []


def test_released_on_a_crash() -> None:
    assert differences(steps(RESERVED_A), steps(RESERVED_A), look(0), "release") == []
