"""Ridge regression finds what least squares with a penalty must find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lab.linear import Bags, ridge

bags = st.lists(st.lists(st.integers(0, 6), max_size=5, unique=True), min_size=2, max_size=12)


def dense_of(rows: list[list[int]], width: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    table = np.zeros((len(rows), width))
    for number, row in enumerate(rows):
        table[number, row] = 1 / np.sqrt(max(1, len(row)))
    return table


@given(bags, st.integers(0, 99))
def test_it_solves_the_normal_equations(rows: list[list[int]], seed: int) -> None:
    """The shortcut through bags of terms must give what the textbook gives."""
    random = np.random.default_rng(seed)
    extra, targets = random.normal(size=(len(rows), 2)), random.normal(size=len(rows))
    weights = random.uniform(0.5, 2, size=len(rows))
    line = ridge(Bags.of(rows, 7), extra, targets, weights, 0.7)
    table = np.hstack([dense_of(rows, 7), extra, np.ones((len(rows), 1))])
    penalty = np.diag([0.7] * 9 + [1e-6])
    exact = np.linalg.solve(table.T @ (table * weights[:, None]) + penalty, table.T @ (weights * targets))
    assert table @ exact == pytest.approx(line.values(Bags.of(rows, 7), extra), abs=2e-2)


@given(bags, st.data())
def test_chosen_rows_are_those_rows(rows: list[list[int]], data: st.DataObject) -> None:
    """Folds that mixed up rows would train on what they are measured on."""
    chosen = data.draw(st.permutations(range(len(rows))).map(lambda order: order[: len(rows) // 2 + 1]))
    values = np.arange(1.0, 8.0)
    whole = Bags.of(rows, 7)
    part = whole.only(np.array(chosen))
    assert part.times(values) == pytest.approx(whole.times(values)[chosen])
    assert part.back(np.ones(len(part))) == pytest.approx(dense_of([rows[i] for i in chosen], 7).sum(axis=0))


def test_constant_targets_need_no_terms() -> None:
    """A head that everything belongs to must not divide by nothing."""
    line = ridge(Bags.of([[0], [1]], 2), np.zeros((2, 0)), np.zeros(2), np.ones(2), 1.0)
    assert line.bias == 0
    assert not line.terms.any()
