"""If an entry did not come back as it was written, a store rebuilt from the journals would hold other sums."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.spending import CostCell, Counter, Lease
from app.spend.entries import EXPIRED, OPS, RESERVED, SETTLED, Entry, decode, encode, entry_of

DAY = Counter("global:*:day", "global", "day", "{tierway}:spend:global:1", 5_000, 0, 86_400_000)
TOTAL = Counter("key:k:total", "key", "total", "{tierway}:spend:key:0", None, 0, 0, 60_000)
LEASE = Lease("a1", "r1", "claude/x", 700, (DAY, TOTAL), "e1")
CELL = CostCell("{tierway}:costs:2026-11-20", "x|n", 3, 60)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
whole = st.integers(0, 2**63 - 1)
counters = st.builds(Counter, texts, texts, texts, texts, st.none() | whole, whole, whole, whole)
cells = st.builds(CostCell, texts, texts, st.integers(-(2**63) + 1, 2**63 - 1), whole)
entries = st.builds(
    Entry,
    st.sampled_from(sorted(OPS)),
    texts.filter(bool),
    whole,
    whole,
    st.lists(counters, max_size=3).map(tuple),
    texts,
    whole,
    texts,
    st.lists(cells, max_size=2).map(tuple),
    texts,
    texts,
)


@given(entries)
def test_a_line_says_what_was_written(entry: Entry) -> None:
    line = encode(entry)
    assert line.count(b"\n") == 1 and decode(line) == entry


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=3), st.lists).map(orjson.dumps)
)
def test_anything_else_is_nothing(line: bytes) -> None:
    """Files outlive crashes, and people edit them."""
    assert decode(line) is None


@given(entries, st.data())
def test_a_cut_line_is_nothing(entry: Entry, data: st.DataObject) -> None:
    line = encode(entry)
    assert decode(line[: data.draw(st.integers(0, len(line) - 2))]) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"op": "Q"},
        {"op": ["R"]},
        {"id": ""},
        {"id": 4},
        {"n": -1},
        {"n": 1.0},
        {"n": True},
        {"held": "7"},
        {"at": None},
        {"final": 1},
        {"counters": None},
        {"counters": [["a"]]},
        {"counters": [7]},
        {"counters": ["sevenxx"]},
        {"counters": [["i", "s", "p", 3, 1, 0, 0]]},
        {"counters": [["i", "s", "p", "k", -3, 0, 0]]},
        {"counters": [["i", "s", "p", "k", 3, "0", 0]]},
        {"counters": [["i", "s", "p", "k", 3, 0, 2**70]]},
        {"counters": [["i", "s", "p", "k", 3, 0, 0, -1]]},
        {"cells": [["k", "f", "3", 0]]},
        {"cells": [["k", "f", 3, -1]]},
        {"cells": [["k", "f", 2**80, 1]]},
        {"cells": [[1, "f", 3, 1]]},
        {"cells": {"a": 1}},
    ],
)
def test_a_wrong_value_makes_it_nothing(wrong: dict[str, object]) -> None:
    """Half an entry must not be counted."""
    line = orjson.loads(encode(entry_of(SETTLED, LEASE, 5, 600, cells=(CELL,))))
    assert decode(orjson.dumps(line)) is not None
    assert decode(json.dumps({**line, **wrong}).encode()) is None
    del line["epoch"]
    assert decode(orjson.dumps(line)) is None


def test_a_lease_comes_back_out_of_its_entry() -> None:
    """Whoever replays an outbox did not make the lease."""
    entry = entry_of(SETTLED, LEASE, 5, 600, "released", (CELL,))
    assert entry.as_lease() == LEASE and (entry.final, entry.cells, entry.amount_nano) == ("released", (CELL,), 600)


def test_each_last_word_has_its_state() -> None:
    assert entry_of(EXPIRED, LEASE, 5, 700).final == "expired" and entry_of(EXPIRED, LEASE, 5).is_last_word
    assert entry_of(SETTLED, LEASE, 5, 700).final == "settled"
    assert entry_of(RESERVED, LEASE, 5).final == "" and not entry_of(RESERVED, LEASE, 5).is_last_word


def test_a_name_that_is_no_text_does_not_lose_the_money() -> None:
    lease = Lease("a1", "r1", "cl\ud800aude", 700, (DAY,), "e1")
    found = decode(encode(entry_of(SETTLED, lease, 5, 600)))
    assert found is not None and (found.amount_nano, found.counters) == (600, (DAY,))
