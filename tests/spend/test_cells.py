"""Without these a caller who makes up names fills the store, or one name's costs are shown as another's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.spend import cells
from app.spend.cells import OTHER, ROOMS, Names, Row, Who, clean, prefix, row_of

WHO = Who("gpu/qwen", "key-a", "acme", "coder")


@given(st.lists(st.text(), min_size=4, max_size=4), st.integers())
def test_whatever_the_names_are_a_sum_comes_back_as_what_it_was(names: list[str], amount: int) -> None:
    field = prefix(cells.TRAFFIC, *names) + cells.COST
    row = row_of(field.encode(), str(amount).encode())
    assert row == Row(cells.TRAFFIC, tuple(map(clean, names)), cells.COST, amount)


@pytest.mark.parametrize(("name", "kept"), [("a\x1fb", "a?b"), ("\x1b[2J", "?[2J"), ("\ud800", "?"), ("é b", "é b")])
def test_nothing_in_a_name_is_obeyed(name: str, kept: str) -> None:
    assert clean(name) == kept


def test_a_name_has_its_length() -> None:
    assert len(clean("x" * 10_000)) == cells.NAME_CHARS


@pytest.mark.parametrize(
    ("field", "amount"),
    [
        (b"", b"1"),
        (b"t", b"1"),
        (b"t\x1fa\x1fb\x1fcost", b"1"),
        (b"x\x1fa\x1fb\x1fc\x1fd\x1fcost", b"1"),
        (b"t\x1fa\x1fb\x1fc\x1fd\x1fcost", b"one"),
        (b"t\x1fa\x1fb\x1fc\x1fd\x1fcost", b"9" * 5_000),
    ],
)
def test_what_is_no_sum_is_passed_over(field: bytes, amount: bytes) -> None:
    assert row_of(field, amount) is None


def test_the_same_names_are_the_same_cell() -> None:
    names = Names()
    assert names.prefixes(WHO) == (prefix(cells.TRAFFIC, *WHO), "gpu/qwen\x1f")
    assert names.prefixes(WHO) is names.prefixes(WHO)


def test_a_flood_of_agents_is_other_and_takes_nobodys_place() -> None:
    """An agent that numbers its runs would make a field for each, for thirty days."""
    names = Names()
    made = {names.prefixes(WHO._replace(agent=f"run-{number}")) for number in range(3 * ROOMS[0])}
    assert len(made) == ROOMS[0] + 1
    assert names.prefixes(WHO._replace(agent="new")).day == prefix("t", "gpu/qwen", "key-a", "acme", OTHER)
    assert names.prefixes(Who("claude/opus", "key-b", "", "x")).day == prefix("t", "claude/opus", "key-b", "", OTHER)
    assert names.prefixes(WHO._replace(agent="run-1")).day == prefix("t", "gpu/qwen", "key-a", "acme", "run-1")


def test_a_flood_of_everything_ends_in_one_cell() -> None:
    names = Names()
    made = {names.prefixes(Who(f"m{number}", f"k{number}", "", "")) for number in range(2 * ROOMS[-1])}
    assert len(made) == ROOMS[-1] + 1
    alone = names.prefixes(Who("m0", "k-new", "", ""))
    assert alone == (prefix("t", OTHER, OTHER, OTHER, OTHER), f"{OTHER}\x1f")


def test_after_many_keys_models_still_have_their_own() -> None:
    names = Names()
    for number in range(ROOMS[1]):
        names.prefixes(WHO._replace(key=f"k{number}"))
    assert names.prefixes(Who("new/model", "k-new", "", "")).day == prefix("t", "new/model", OTHER, OTHER, OTHER)
    assert names.prefixes(Who("new/model", "k-newer", "", "")).day == prefix("t", "new/model", OTHER, OTHER, OTHER)


def test_where_the_days_table_is_full_only_known_agents_have_their_own() -> None:
    names = Names()
    known = names.prefixes(WHO)
    names.full = True
    assert names.prefixes(WHO) == known
    assert names.prefixes(WHO._replace(agent="new")).day == prefix("t", "gpu/qwen", "key-a", "acme", OTHER)
    assert names.prefixes(WHO._replace(agent="")).day == prefix("t", "gpu/qwen", "key-a", "acme", "")
