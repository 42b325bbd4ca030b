"""The table says what was measured, and what makes it doubtful."""

from __future__ import annotations

from typing import Any

from bench.report import complaints, measured, readme, table, value
from bench.workloads import FIGURES, Figure

CPU = FIGURES[0]
IDLE = Figure("idle", None, "idle_rss_mb", 0)
FIRST = Figure("first", "paced", "first_ms_p50", 1, added=True)


def record(target: str, workload: str, **seen: Any) -> dict[str, Any]:
    return {"target": target, "workload": workload, "errors": {}, "foreign": 0.0, **seen}


def document(**more: Any) -> dict[str, Any]:
    return {
        "time": "2026-11-20T12:00:00Z",
        "upstream": "mock",
        "targets": {"direct": {}, "tierway": {"idle_rss_mb": 1234.4}},
        "records": [
            record("direct", "small", requests_s=9.0),
            record("tierway", "small", cpu_ms_per_request=0.3),
            record("tierway", "small", cpu_ms_per_request=0.2),
            record("tierway", "small", cpu_ms_per_request=0.29),
            record("direct", "paced", first_ms_p50=1.0),
            record("tierway", "paced", first_ms_p50=3.5),
        ],
        **more,
    }


def test_a_figure_is_the_median_of_its_repetitions() -> None:
    assert value(document(), "tierway", CPU) == 0.29
    assert value(document(), "direct", CPU) is None
    assert value(document(), "tierway", IDLE) == 1234.4
    assert value(document(), "direct", IDLE) is None


def test_added_time_is_less_what_the_upstream_takes_itself() -> None:
    assert value(document(), "tierway", FIRST) == 2.5
    assert value(document(), "direct", FIRST) is None
    alone = document(records=[record("tierway", "paced", first_ms_p50=3.5)])
    assert value(alone, "tierway", FIRST) is None


def test_the_table_has_a_column_for_each_target_and_no_empty_row() -> None:
    assert table(document(), [CPU, IDLE, Figure("nothing", "large", "cpu_ms_per_request", 2)]).splitlines() == [
        "|  | direct | tierway |",
        "|---|---:|---:|",
        f"| {CPU.label} | - | 0.29 |",
        "| idle | - | 1,234 |",
    ]


def test_a_table_without_rows_is_not_printed() -> None:
    assert table(document(records=[]), [CPU]) == ""


def test_what_makes_figures_doubtful_is_said() -> None:
    calm = document(records=[record("tierway", "small", cpu_ms_per_request=cpu) for cpu in (0.29, 0.30)])
    assert complaints(calm) == []
    busy = document(records=[record("tierway", "small", errors={"status 502": 3}, foreign=0.5, cpu_ms_per_request=0.3)])
    assert complaints(busy) == [
        "tierway, small: {'status 502': 3}",
        "other processes used up to 50% of the gateway's core in 1 measurements",
    ]
    assert complaints(document()) == [f"tierway, {CPU.label}: repetitions are 34% apart"]
    few = document(records=[record("tierway", "memory", streams_open=990, connections=1_000, stream=True, fresh=True)])
    assert complaints(few) == ["tierway, memory: only 990 of 1000 streams were open"]


def test_repetitions_that_are_alone_are_not_apart() -> None:
    alone = measured(document(records=[record("tierway", "small", cpu_ms_per_request=0.3)]), "tierway", CPU)
    assert alone is not None and alone.apart is None
    idle = measured(document(), "tierway", IDLE)
    assert idle is not None and idle.apart is None


def test_what_the_store_takes_is_told_apart() -> None:
    """Whoever brings a store of his own wants to know what the gateway takes alone."""
    both = document(records=[record("tierway", "small", cpu_ms_per_request=0.5, alone_ms_per_request=0.4)])
    assert f"| {CPU.label} | - | 0.50 (0.40) |" in table(both, [CPU])
    no_store = document(records=[record("tierway", "small", cpu_ms_per_request=0.5, alone_ms_per_request=0.5)])
    assert f"| {CPU.label} | - | 0.50 |" in table(no_store, [CPU])


def test_the_goals_stand_beside_what_was_measured() -> None:
    assert table(document(), [CPU, IDLE], goals=True).splitlines() == [
        "|  | direct | tierway | goal: first, then |",
        "|---|---:|---:|---:|",
        f"| {CPU.label} | - | 0.29 | 0.6, then 0.35 |",
        "| idle | - | 1,234 | - |",
    ]


def test_the_table_of_the_readme_says_when_where_and_how() -> None:
    machine = {"cpu": "EPYC", "cores": 2, "system": "Linux-6.1-x-with-glibc", "python": "3.11.7", "tierway": "0.1.0"}
    said = readme(document(commit="abc", machine=machine, repetitions=5), "again")
    rows, _, about = said.partition("\n\n")
    assert rows.splitlines()[0] == "|  | **Tierway, all features on** |"
    assert rows.splitlines()[2] == f"| {CPU.label} | **0.29** |"
    for part in ("2026-11-20", "0.1.0 (abc)", "2 cores of EPYC", "Linux-6.1-x,", "medians of 5", "mock", "`again`"):
        assert part in about
