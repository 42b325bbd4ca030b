"""The workloads fit the figures that read them, and ask upstreams for what they mean."""

from __future__ import annotations

import pytest

from app.simulator.brain import directives
from bench.workloads import DETAILS, FIGURES, PAUSES, WORKLOADS, Workload


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_a_prompt_has_its_size_and_says_how_much_to_answer(workload: Workload) -> None:
    """Else the gateways would be compared on other requests than the table says."""
    assert len(workload.prompt) == workload.prompt_bytes
    assert directives(workload.prompt) == {"tokens": str(workload.tokens)}
    assert workload.model in PAUSES


def test_every_figure_is_of_a_workload_that_exists() -> None:
    """A renamed workload would empty a row of the table without a word."""
    names = {workload.name for workload in WORKLOADS}
    assert {figure.workload for figure in (*FIGURES, *DETAILS)} - {None} <= names


def test_only_what_spoils_a_process_runs_in_a_fresh_one() -> None:
    """A growth of memory that is measured after other workloads is not what the row says."""
    assert [workload.name for workload in WORKLOADS if workload.fresh] == ["memory"]


def test_every_figure_has_a_name_of_its_own_in_the_history() -> None:
    """Two of one name would be compared with each other."""
    ids = [figure.id for figure in (*FIGURES, *DETAILS)]
    assert len(set(ids)) == len(ids)


def test_what_is_alone_is_a_part_of_the_whole() -> None:
    assert all(figure.alone != figure.key for figure in FIGURES)
    assert all(figure.goals is None or figure.goals[0] >= figure.goals[1] for figure in FIGURES)
